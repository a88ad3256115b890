"""What happens when: the step size of every iteration, and the images of every batch."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate

import torch
from torch import Tensor

from .recipe import Recipe

SHAPES = {
    "cosine": lambda part: 0.5 * (1 + math.cos(math.pi * part)),
    "linear": lambda part: 1 - part,
    "flat": lambda part: min(1.0, (1 - part) / 0.4),  # the peak for 60 % of the way, then linear
}
"""The rate as a part of its peak, at a part of the way from the warm-up's end (0) to the end of the last iteration (1)."""


def rate(step: int, total: int, warmup: int, peak: float, start: float, shape: str = "cosine") -> float:
    """Linear from start to peak over the warm-up iterations, then down to 0 in one of :data:`SHAPES`."""
    if step < warmup:
        return start + (peak - start) * step / warmup
    return peak * SHAPES[shape]((step - warmup) / max(1, total - warmup))


class Schedule:
    """A recipe's iterations: ``starts`` holds the first one of each epoch, and behind them their number.

    Args:
        recipe: its epochs may differ in ``batch_size``, and so in their number of iterations.
        images: number of training images.
    """

    def __init__(self, recipe: Recipe, images: int):
        self.recipe = recipe
        sizes = (recipe.at("batch_size", epoch) for epoch in range(recipe.epochs))
        self.starts = [0, *accumulate(math.ceil(images / size) for size in sizes)]

    def iterations(self, epochs: float, start: int = 0) -> int:
        """In so many epochs from the epoch start on; of a part of an epoch, its part. At most to the end."""
        last = len(self.starts) - 1
        whole = min(start + int(epochs), last)
        rest = (epochs % 1) * (self.starts[min(whole + 1, last)] - self.starts[whole])
        return round(self.starts[whole] - self.starts[start] + rest)

    def lr(self, step: int) -> float:
        """The step size of an iteration, counted from 0: every cycle of ``lr`` has its own warm-up and decay."""
        r, starts = self.recipe, self.starts
        start, end, peak = r.cycle_at(bisect_right(starts, step) - 1)
        warmup = self.iterations(r.warmup_epochs, start)
        return rate(step - starts[start], starts[end] - starts[start], warmup, peak, r.warmup_lr, r.schedule)


def batches(n: int, size: int, seed: int, epoch: int, skip: int = 0) -> Iterator[Tensor]:
    """Rows of each batch of an epoch, the last one partial, from the skip-th on."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed * 100_003 + epoch))
    yield from order.split(size)[skip:]
