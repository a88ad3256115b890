"""The augmentations that a recipe can name, of a whole batch at once, on the device the images live on.

The draws come from one generator on the CPU, so a seed means the same pictures on every device. Every entry of
AUGMENTATIONS is called with the batch (uint8 ``[B, C, H, W]``, or event counts ``[B, T, 2, H, W]``), the generator, and the
side in pixels of the images it must return; it returns the same type or float, in the same range.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .transforms import beside, color_jitter, crop, crop_boxes, crop_nearest, cut_square, cutout, each, flip, resize, roll, rotate
from .trivial import trivial_augment


def paper_cifar(x: Tensor, rng: torch.Generator, size: int) -> Tensor:
    """The CIFAR recipe: crop with padding 4, Cutout, flip."""
    return flip(cutout(crop(x, rng), rng), rng)


def trivial(x: Tensor, rng: torch.Generator, size: int) -> Tensor:
    """TrivialAugment on each image, then the CIFAR recipe."""
    return paper_cifar(trivial_augment(x, rng), rng, size)


def paper_tinyimagenet(x: Tensor, rng: torch.Generator, size: int) -> Tensor:
    """Random resized crop (scale 0.08-1), flip, colour jitter, Cutout."""
    b, _, h, w = x.shape
    x = resize(x, size, crop_boxes(b, h, w, rng, (0.08, 1.0)))
    return cutout(color_jitter(flip(x, rng), rng), rng)


def paper_dvsgesture(x: Tensor, rng: torch.Generator, size: int) -> Tensor:
    """Random resized crop (scale 0.5-1, nearest), resize, flip."""
    b, _, _, h, w = x.shape
    return flip(resize(crop_nearest(x, crop_boxes(b, h, w, rng, (0.5, 1.0))), size), rng)


def paper_cifar10dvs(x: Tensor, rng: torch.Generator, size: int) -> Tensor:
    """Random resized crop (scale 0.7-1, nearest), resize, flip, then one of: roll, rotate, cut out."""
    b, _, _, h, w = x.shape
    x = flip(resize(crop_nearest(x, crop_boxes(b, h, w, rng, (0.7, 1.0))), size), rng)
    which = beside(x, torch.randint(3, (b,), generator=rng))
    rolled, turned, cut = roll(x, rng), rotate(x, rng), cut_square(x, rng)
    return torch.where(each(which == 0, x), rolled, torch.where(each(which == 1, x), turned, cut))


AUGMENTATIONS = {
    "none": lambda x, rng, size: x,
    "cifar": paper_cifar,
    "trivial": trivial,
    "crop": lambda x, rng, size: crop(x, rng),
    "crop_flip": lambda x, rng, size: flip(crop(x, rng), rng),
    "tinyimagenet": paper_tinyimagenet,
    "cifar10dvs": paper_cifar10dvs,
    "dvsgesture": paper_dvsgesture,
}


def pixels(x: Tensor, size: int | None = None) -> Tensor:
    """What the network takes: pixels in [0, 1], channels last, or counts of events, of the given side."""
    if size and x.shape[-2:] != (size, size):
        x = resize(x, size)
    if x.dim() == 5:
        return x.float()
    return (x.float() / 255).contiguous(memory_format=torch.channels_last)
