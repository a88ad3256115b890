"""Labelled images that can be gone through again and again, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batches:
    """Yields (pixels, labels).

    Args:
        x: images as stored, ``[N, ...]``. y: their classes, ``[N]``.
        pixels: what makes of them the network's input, floats in [0, 1].
        size: images in a batch; a smaller rest makes a last batch.
    """

    x: Tensor
    y: Tensor
    pixels: Callable[[Tensor], Tensor]
    size: int = 50

    def __len__(self) -> int:
        """Images, not batches."""
        return len(self.y)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in zip(self.x.split(self.size), self.y.split(self.size)):
            yield self.pixels(x), y

    @property
    def inputs(self) -> Inputs:
        return Inputs(self)

    def first(self, n: int) -> Batches:
        return Batches(self.x[:n], self.y[:n], self.pixels, self.size)


@dataclass(frozen=True)
class Inputs:
    """The pixels alone."""

    batches: Batches

    def __iter__(self) -> Iterator[Tensor]:
        for x, _ in self.batches:
            yield x
