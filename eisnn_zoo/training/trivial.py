"""TrivialAugment (Mueller and Hutter 2021) of a whole batch at once, on its device.

Each image gets one of 14 changes, at one of 31 strengths, all equally likely: torchvision's ``TrivialAugmentWide``, whose own takes
an image at a time, which keeps a GPU waiting (benchmarks/README.md).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .transforms import beside, each

MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")  # made together
STRENGTHS = 31


def trivial_augment(x: Tensor, rng: torch.Generator) -> Tensor:
    """A batch changed, image by image; uint8 ``[B, 3, H, W]``, or of one channel, which has no colour to change."""
    b = x.shape[0]
    which, level = torch.randint(len(CHANGES), (b,), generator=rng), torch.randint(STRENGTHS, (b,), generator=rng)
    level = level * (2 * torch.randint(2, (b,), generator=rng) - 1)  # the sign serves where a change has one
    return apply(x, which, level)


def apply(x: Tensor, which: Tensor, level: Tensor) -> Tensor:
    """Image i changed by ``CHANGES[which[i]]`` at strength level[i], in -30..30; both on the CPU, so that nothing waits for a device."""
    changed, order = [], []
    for names in (MOVES, *((name,) for name in COLOURS)):
        rows = torch.isin(which, torch.tensor([CHANGES.index(name) for name in names])).nonzero().flatten()
        if len(rows):
            images = x[beside(x, rows)]
            new = _moved(images, which[rows], level[rows]) if names is MOVES else COLOURS[names[0]](images, level[rows])
            changed.append(new.to(torch.uint8))
            order.append(rows)
    return torch.cat(changed)[beside(x, torch.cat(order).argsort())]


def _up_to(most: float, level: Tensor) -> Tensor:
    return torch.linspace(0, most, STRENGTHS)[level.abs()] * level.sign()


# ---- moves: nearest pixel, black from outside ------------------------------------------------------------------------


def _moved(x: Tensor, which: Tensor, level: Tensor) -> Tensor:
    """Sheared about the corner by up to 0.99, moved by up to 32 pixels, or turned about the middle by up to 135 degrees."""
    b, _, h, w = x.shape
    is_ = {name: (which == CHANGES.index(name)).double() for name in MOVES}
    shear_x, shear_y = (_up_to(0.99, level) * is_[name] for name in ("shear_x", "shear_y"))
    right, down = (_up_to(32, level).trunc() * is_[name] for name in ("translate_x", "translate_y"))
    turn = (_up_to(135, level) * is_["rotate"]).deg2rad()
    cos, sin = turn.cos(), turn.sin()
    # where each pixel comes from, in pixels from the middle
    columns = torch.stack([cos, shear_x - sin, shear_x * h / 2 - right], -1)
    rows = torch.stack([shear_y + sin, cos, shear_y * w / 2 - down], -1)
    matrix = torch.stack([columns / (w / 2), rows / (h / 2)], 1)
    down_, right_ = torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in (h, w)), indexing="ij")
    places = torch.stack([right_, down_, torch.ones_like(down_)], -1).view(-1, 3)
    grid = beside(x, places) @ beside(x, matrix.float()).mT
    return F.grid_sample(x.float(), grid.view(b, h, w, 2), "nearest", "zeros", align_corners=False)


# ---- colours: of [n, C, H, W] in 0..255, by levels [n] ----------------------------------------------------------------


def _factor(level: Tensor, x: Tensor) -> Tensor:
    """Within 1 +- 0.99."""
    return each(beside(x, 1 + _up_to(0.99, level)), x)


def _blend(x: Tensor, other: Tensor, level: Tensor) -> Tensor:
    """From other, at factor 0, over x, at 1, and beyond."""
    factor = _factor(level, x)
    return (x * factor + other * (1 - factor)).clamp(0, 255)


def _grey(x: Tensor) -> Tensor:
    if x.shape[1] == 1:
        return x
    r, g, b = x.split(1, 1)
    return r.mul(0.2989).add_(g, alpha=0.587).add_(b, alpha=0.114).floor_()


def _sharpness(x: Tensor, level: Tensor) -> Tensor:
    """Against a blurred one; the border has nothing to blur with and stays."""
    kernel = torch.ones(3, 3, device=x.device)
    kernel[1, 1] = 5
    x = x.float()
    blurred = x.clone()
    blurred[..., 1:-1, 1:-1] = F.conv2d(x, (kernel / 13).expand(x.shape[1], 1, 3, 3), groups=x.shape[1]).round()
    factor = _factor(level, x)
    return (x + (blurred - x) * (1 - factor)).clamp(0, 255)


def _posterize(x: Tensor, level: Tensor) -> Tensor:
    """8 to 2 bits a channel."""
    dropped = (level.abs() / ((STRENGTHS - 1) / 6)).round().int()
    return x & each(beside(x, (255 >> dropped) << dropped), x).to(torch.uint8)


def _solarize(x: Tensor, level: Tensor) -> Tensor:
    """Inverted from a brightness on."""
    return torch.where(x >= each(beside(x, 255 * torch.linspace(1, 0, STRENGTHS)[level.abs()]), x), 255 - x, x)


def _by_torchvision(name: str, x: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional

    return getattr(functional, name)(x)


COLOURS = {
    "identity": lambda x, level: x,
    "brightness": lambda x, level: _blend(x, torch.zeros_like(x), level),
    "color": lambda x, level: _blend(x, _grey(x), level) if x.shape[1] == 3 else x,
    "contrast": lambda x, level: _blend(x, _grey(x).float().mean((1, 2, 3), keepdim=True), level),
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": lambda x, level: _by_torchvision("autocontrast", x),
    "equalize": lambda x, level: _by_torchvision("equalize", x),
}
CHANGES = ("identity", *MOVES, *(name for name in COLOURS if name != "identity"))
