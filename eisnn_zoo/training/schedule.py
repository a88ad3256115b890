"""What happens when: the step size of every iteration, and the images of every batch."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

SHAPES = {
    "cosine": lambda part: 0.5 * (1 + math.cos(math.pi * part)),
    "linear": lambda part: 1 - part,
    "flat": lambda part: min(1.0, (1 - part) / 0.4),  # the peak for 60 % of the way, then linear
}
"""The rate as a part of its peak, at a part of the way from the warm-up's end (0) to the last iteration (1)."""


def rate(step: int, total: int, warmup: int, peak: float, start: float, shape: str = "cosine") -> float:
    """Linear from start to peak over the warm-up iterations, then down to 0 in one of :data:`SHAPES`."""
    if step < warmup:
        return start + (peak - start) * step / warmup
    return peak * SHAPES[shape]((step - warmup) / max(1, total - warmup))


def batches(n: int, size: int, seed: int, epoch: int, skip: int = 0) -> Iterator[Tensor]:
    """Rows of each batch of an epoch, the last one partial, from the skip-th on."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed * 100_003 + epoch))
    yield from order.split(size)[skip:]
