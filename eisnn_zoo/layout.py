"""Axes in the order in which maps lie in memory on a processor: channels last.

Arithmetic that follows this order runs along memory; torch.compile, too, then writes loops over neighbouring numbers
instead of gathering them one by one. Measured on one core: bf16 training steps 1.1 (ResNet-18, T = 1) to 1.4 times (VGG-8,
T = 4) as fast.
"""

from __future__ import annotations

from torch import Tensor


def in_memory_order(x: Tensor) -> Tensor:
    """A view, ``[..., C, H, W]`` to ``[..., H, W, C]``; ``[N, C]`` as it is."""
    return x.movedim(-3, -1) if x.dim() > 2 else x


def as_map(x: Tensor) -> Tensor:
    """The way back, a view: ``[..., H, W, C]`` to ``[..., C, H, W]``; ``[N, C]`` as it is."""
    return x.movedim(-1, -3) if x.dim() > 2 else x
