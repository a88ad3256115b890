"""What happens when: the step size of every iteration, and the images of every batch."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor


def warmup_cosine(step: int, total: int, warmup: int, peak: float, start: float) -> float:
    """Linear from start to peak over the warm-up iterations, then cosine to 0."""
    if step < warmup:
        return start + (peak - start) * step / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def batches(n: int, size: int, seed: int, epoch: int, skip: int = 0) -> Iterator[Tensor]:
    """Rows of each batch of an epoch, the last one partial, from the skip-th on."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed * 100_003 + epoch))
    yield from order.split(size)[skip:]
