"""Augmentation of a whole batch at once, on the device the images live on.

The draws come from one generator on the CPU, so a seed means the same pictures on every device.
"""

from __future__ import annotations

import torch
from torch import Tensor


def crop(x: Tensor, rng: torch.Generator, padding: int = 4) -> Tensor:
    """Random crop to the image's own size after zero padding. Shape: uint8 ``[B, C, H, W]``."""
    b, _, h, w = x.shape
    padded = torch.nn.functional.pad(x, [padding] * 4)
    dy, dx = (torch.randint(2 * padding + 1, (b, 1), generator=rng).to(x.device) for _ in range(2))
    rows = (torch.arange(h, device=x.device) + dy)[:, None, :, None]
    columns = (torch.arange(w, device=x.device) + dx)[:, None, None, :]
    return padded[torch.arange(b, device=x.device)[:, None, None, None], torch.arange(x.shape[1], device=x.device)[:, None, None],
                  rows, columns]


def flip(x: Tensor, rng: torch.Generator) -> Tensor:
    """Mirrored left to right with probability 0.5."""
    chosen = (torch.rand(x.shape[0], generator=rng) < 0.5).to(x.device)
    return torch.where(chosen.view(-1, *[1] * (x.dim() - 1)), x.flip(-1), x)


def cutout(x: Tensor, rng: torch.Generator, p: float = 0.5, area: tuple[float, float] = (0.02, 0.4),
           aspect: tuple[float, float] = (0.4, 2.5)) -> Tensor:
    """A random box painted (c, 0, 0), c uniform in 0..255, as the paper's recipe does.

    Args:
        p: probability for an image.
        area: share of the image, drawn uniformly; aspect: height over width, drawn uniformly.
    """
    b, _, h, w = x.shape
    u = torch.rand(6, b, generator=rng)
    share, ratio = area[0] + u[0] * (area[1] - area[0]), aspect[0] + u[1] * (aspect[1] - aspect[0])
    height = (share * ratio * h * w).sqrt().round().clamp(max=h)
    width = (share / ratio * h * w).sqrt().round().clamp(max=w)
    top, left = (u[2] * (h - height + 1)).floor(), (u[3] * (w - width + 1)).floor()
    ys, xs = torch.arange(h), torch.arange(w)
    inside = (((ys >= top[:, None]) & (ys < (top + height)[:, None]))[:, :, None]
              & ((xs >= left[:, None]) & (xs < (left + width)[:, None]))[:, None, :]
              & (u[4] < p)[:, None, None])
    paint = torch.zeros(b, x.shape[1])
    paint[:, 0] = (u[5] * 256).floor()
    return torch.where(inside[:, None].to(x.device), paint.to(x.device, x.dtype)[:, :, None, None], x)


def paper_cifar(x: Tensor, rng: torch.Generator) -> Tensor:
    """The CIFAR recipe: crop with padding 4, Cutout, flip."""
    return flip(cutout(crop(x, rng), rng), rng)


AUGMENTATIONS = {"none": lambda x, rng: x, "cifar": paper_cifar, "crop_flip": lambda x, rng: flip(crop(x, rng), rng)}
