"""Batched augmentation against a plain version that takes one image at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from eisnn_zoo.training import augment, transforms, trivial

B = 40


def rng(seed=5):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    return torch.randint(0, 256, (B, 3, 32, 32), generator=rng(1)).to(torch.uint8)


def plain_crop(image, dy, dx):
    padded = np.zeros((3, 40, 40), np.uint8)
    padded[:, 4:36, 4:36] = image
    return padded[:, dy : dy + 32, dx : dx + 32]


def plain_cutout(image, u):
    """torchtoolbox's Cutout with the numbers it would have drawn."""
    share, ratio = (0.02 + u[0] * 0.38) * 32 * 32, 0.4 + u[1] * 2.1
    height, width = int(math.sqrt(share * ratio)), int(math.sqrt(share / ratio))
    top, left = math.floor(u[2] * (32 - height + 1)), math.floor(u[3] * (32 - width + 1))
    image = image.copy()
    if u[4] < 0.5:
        image[:, top : top + height, left : left + width] = np.array([int(u[5] * 256), 0, 0], np.uint8)[:, None, None]
    return image


def test_the_cifar_recipe_image_by_image(images):
    draw = rng()
    dy, dx = (torch.randint(9, (B, 1), generator=draw).flatten().tolist() for _ in range(2))
    u = torch.rand(6, B, generator=draw, dtype=torch.float64).T.tolist()
    flips = (torch.rand(B, generator=draw) < 0.5).tolist()
    expected = []
    for image, *numbers in zip(images.numpy(), dy, dx, u, flips):
        image = plain_cutout(plain_crop(image, numbers[0], numbers[1]), numbers[2])
        expected.append(image[:, :, ::-1] if numbers[3] else image)
    got = augment.AUGMENTATIONS["cifar"](images, rng(), 32)
    assert got.dtype == torch.uint8 and np.array_equal(got.numpy(), np.stack(expected))


def crop_of_events(x, draw, least):
    boxes = transforms.crop_boxes(len(x), 32, 32, draw, (least, 1.0))
    return transforms.flip(transforms.resize(transforms.crop_nearest(x, boxes), 48), draw)


def crop_of_pictures(x, draw, least):
    boxes = transforms.crop_boxes(len(x), 32, 32, draw, (least, 1.0))
    return transforms.flip(transforms.resize(x, 48, boxes), draw)


def cifar10dvs(x, draw):
    x = crop_of_events(x, draw, 0.7)
    which = torch.randint(3, (len(x),), generator=draw)
    changed = torch.stack([transforms.roll(x, draw), transforms.rotate(x, draw), transforms.cut_square(x, draw)])
    return changed[which, torch.arange(len(x))]


@pytest.mark.parametrize("name, parts", [
    ("none", lambda x, draw: x),
    ("crop", lambda x, draw: transforms.crop(x, draw)),
    ("crop_flip", lambda x, draw: transforms.flip(transforms.crop(x, draw), draw)),
    ("trivial", lambda x, draw: augment.AUGMENTATIONS["cifar"](trivial.trivial_augment(x, draw), draw, 48)),
    ("tinyimagenet", lambda x, draw: transforms.cutout(transforms.color_jitter(crop_of_pictures(x, draw, 0.08), draw), draw)),
    ("dvsgesture", lambda x, draw: crop_of_events(x, draw, 0.5)),
    ("cifar10dvs", cifar10dvs),
])
def test_what_an_augmentation_is_made_of_and_in_which_order(images, name, parts):
    x = images[:, None, :2] % 4 if "dvs" in name else images
    assert torch.equal(augment.AUGMENTATIONS[name](x, rng(), 48), parts(x, rng()))


def test_cutout_statistics(images):
    """Probability 0.5; area 2-40 %; the paint is (c, 0, 0)."""
    white = torch.full((4000, 3, 32, 32), 255, dtype=torch.uint8)
    got = transforms.cutout(white, rng())
    painted = got[:, 1] == 0
    share = painted.flatten(1).float().mean(1)
    cut = share > 0
    assert abs(cut.float().mean() - 0.5) < 0.03
    assert share[cut].max() <= 0.4 and share[cut].min() > 0.01
    assert abs(share[cut].mean() - 0.2) < 0.02  # a little below 0.21: sides are whole pixels
    red = torch.stack([image[0][box].float().mean() for image, box, c in zip(got, painted, cut) if c])
    assert red.min() < 10 and red.max() > 245 and abs(red.mean() - 127.5) < 5


def test_boxes_are_drawn_as_torchvision_draws_them():
    from torchvision.transforms import RandomResizedCrop

    def facts(boxes: torch.Tensor) -> torch.Tensor:
        top, left, height, width = boxes.double().unbind(1)
        values = torch.stack([(height * width).log(), (height / width).log(), top / (33 - height), left / (33 - width)])
        return torch.cat([values.mean(1), values.std(1), torch.corrcoef(values)[0, 1:], torch.corrcoef(values)[2, 3:]])

    picture = torch.zeros(1, 32, 32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = torch.tensor([RandomResizedCrop.get_params(picture, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)])
    ours = transforms.crop_boxes(20_000, 32, 32, rng(), (0.2, 1.0))
    torch.testing.assert_close(facts(ours), facts(theirs), rtol=0, atol=0.05)


def test_random_resized_crop_is_torchvisions(images):
    from torchvision.transforms import InterpolationMode, functional

    boxes = transforms.crop_boxes(B, 32, 32, rng(), (0.5, 1.0))
    events = torch.randint(0, 9, (B, 3, 2, 32, 32), generator=rng(2)).to(torch.uint8)
    got = transforms.crop_nearest(events, boxes)
    for i, box in enumerate(boxes.tolist()):
        assert torch.equal(got[i], functional.resized_crop(events[i], *box, [32, 32], InterpolationMode.NEAREST))
    share = boxes[:, 2] * boxes[:, 3] / 1024
    assert share.min() > 0.45 and share.max() <= 1 and share.std() > 0.1


def test_boxes_that_never_fit_take_the_whole_image():
    boxes = transforms.crop_boxes(3, 4, 400, rng(), (0.99, 1.0))
    assert boxes.tolist() == [[0, 0, 4, 400]] * 3


@pytest.mark.parametrize("size", [20, 48, 64])
def test_resize_is_pillows(images, size):
    """Pillow rounds to whole grey levels between the two directions: up to one level apart."""
    boxes = transforms.crop_boxes(B, 32, 32, rng(), (0.3, 1.0))
    got = transforms.resize(images, size, boxes)
    for i, (top, left, height, width) in enumerate(boxes.tolist()):
        picture = Image.fromarray(images[i].permute(1, 2, 0).numpy()).crop((left, top, left + width, top + height))
        expected = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert np.abs(got[i].numpy() - expected).max() < 1.1


def test_color_jitter_image_by_image(images):
    from torchvision.transforms import functional

    x = images[:12]
    draw = rng()
    factor = 1 - 0.4 + 0.8 * torch.rand(3, 12, generator=draw)
    turn = 0.1 * (2 * torch.rand(12, generator=draw) - 1)
    order = torch.rand(4, 12, generator=draw).argsort(0)
    got = transforms.color_jitter(x.float(), rng())
    for i in range(12):
        image = x[i].float() / 255
        for place in order[:, i].tolist():
            image = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation,
                     functional.adjust_hue)[place](image, (*factor[:, i], turn[i])[place].item())
        assert (got[i] / 255 - image).abs().max() < 2e-3


def test_rotation_and_roll_of_events():
    from torchvision.transforms import functional

    x = torch.randint(0, 5, (6, 2, 2, 48, 48), generator=rng(3)).float()
    angles = 30 * (2 * torch.rand(6, generator=rng()) - 1)
    got = transforms.rotate(x, rng())
    for i in range(6):
        assert (got[i] == functional.rotate(x[i], angles[i].item())).float().mean() > 0.995  # ties between two pixels
    draw = rng()
    dy, dx = (torch.randint(-5, 6, (6, 1), generator=draw).flatten().tolist() for _ in range(2))
    rolled = transforms.roll(x, rng())
    for i in range(6):
        assert torch.equal(rolled[i], torch.roll(x[i], (dy[i], dx[i]), (-2, -1)))


def test_event_recipes_keep_time_together_and_counts_positive():
    x = torch.randint(0, 4, (9, 1, 2, 128, 128), generator=rng(4)).to(torch.uint8).expand(-1, 3, -1, -1, -1)
    for name in ("cifar10dvs", "dvsgesture"):
        got = augment.AUGMENTATIONS[name](x, rng(), 48)
        assert got.shape == (9, 3, 2, 48, 48) and got.min() >= 0
        assert torch.equal(got[:, 0], got[:, 2]), "every frame of a recording must be changed alike"
        assert not torch.equal(got, transforms.resize(x, 48))


def test_cut_square_is_sixteen_pixels_around_a_random_one():
    got = transforms.cut_square(torch.ones(200, 1, 1, 48, 48), rng())
    zeros = (got == 0).flatten(1).sum(1)
    assert zeros.max() == 256 and zeros.min() >= 64


def test_tinyimagenet_gives_pixels_of_the_networks_size():
    x = torch.randint(0, 256, (8, 3, 64, 64), generator=rng(6)).to(torch.uint8)
    got = augment.pixels(augment.AUGMENTATIONS["tinyimagenet"](x, rng(), 32), 32)
    assert got.shape == (8, 3, 32, 32) and got.min() >= 0 and got.max() <= 1 and got.std() > 0.05


def test_pixels_and_counts():
    x = torch.tensor([[[[0, 255], [51, 102]]]], dtype=torch.uint8)
    assert torch.equal(augment.pixels(x), torch.tensor([[[[0.0, 1.0], [0.2, 0.4]]]]))
    counts = torch.full((1, 2, 2, 4, 4), 7, dtype=torch.int16)
    assert torch.equal(augment.pixels(counts), counts.float())
    assert torch.allclose(augment.pixels(counts, 2), torch.full((1, 2, 2, 2, 2), 7.0))


@pytest.mark.parametrize("number, name", list(enumerate(trivial.CHANGES)), ids=trivial.CHANGES)
def test_trivial_augment_is_torchvisions_image_by_image(images, number, name):
    smooth = transforms.resize(images[:, :, :9, :9], 32).to(torch.uint8)  # noise has no edges to sharpen, and all its histograms are flat
    theirs = v2.TrivialAugmentWide()
    title = "AutoContrast" if name == "autocontrast" else name.title().replace("_", "")
    strengths, signed = theirs._AUGMENTATION_SPACE[title]
    level = torch.arange(B) % 31 * torch.tensor([1, -1])[torch.arange(B) // 31]  # the sign is nothing to a change without one
    strengths = strengths(31, 32, 32)
    expected = []
    for image, l in zip(smooth, level.tolist()):
        strength = 0.0 if strengths is None else float(strengths[abs(l)]) * (-1 if signed and l < 0 else 1)
        expected.append(theirs._apply_image_or_video_transform(image, title, strength, theirs.interpolation, theirs._fill))
    got = trivial.apply(smooth, torch.full((B,), number), level)
    assert got.dtype == torch.uint8
    difference = (got.int() - torch.stack(expected).int()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 0.02  # the last digit of a product may round otherwise


def test_trivial_augment_draws_every_change_and_strength_alike(images):
    seen = []

    def keep(x, which, level):
        seen.append((which, level))
        return x

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trivial, "apply", keep)
        trivial.trivial_augment(images[:1].expand(20000, -1, -1, -1), rng())
    (which, level), = seen
    for values, count in ((which, 14), (level.abs(), 31)):
        share = values.bincount(minlength=count) / len(values)
        assert len(share) == count and ((share * count - 1).abs() < 0.2).all()
    assert abs((level < 0).float().mean() - 30 / 62) < 0.02


def test_trivial_augment_keeps_each_image_in_its_place(images):
    same = trivial.apply(images, torch.zeros(B, dtype=torch.int64), torch.full((B,), 30))
    assert torch.equal(same, images)
    which = torch.arange(B) % len(trivial.CHANGES)
    together = trivial.apply(images, which, torch.full((B,), 12))
    for i in range(B):
        alone = trivial.apply(images[i : i + 1], which[i : i + 1], torch.tensor([12]))[0]
        assert (together[i] != alone).float().mean() < 0.02  # sums over other batches may round otherwise
    grey = trivial.apply(images[:, :1], which, torch.full((B,), 12))
    assert grey.shape == (B, 1, 32, 32) and torch.equal(grey[which == 7], images[which == 7, :1]), "without colours nothing to change"


@pytest.mark.parametrize("name", ["cifar", "trivial"])
def test_the_seed_decides(images, name):
    before = torch.get_rng_state()
    one, two, other = (augment.AUGMENTATIONS[name](images, rng(s), 32) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, two) and not torch.equal(one, other)
