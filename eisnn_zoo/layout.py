"""Axes in the order in which maps lie in memory on a processor: channels last.

Arithmetic that follows this order runs along memory; torch.compile, too, then writes loops over neighbouring numbers
instead of gathering them one by one (half a training step, measured).
"""

from __future__ import annotations

from torch import Tensor


def in_memory_order(x: Tensor) -> Tensor:
    """A view, ``[..., C, H, W]`` to ``[..., H, W, C]``; ``[N, C]`` as it is."""
    return x.movedim(-3, -1) if x.dim() > 2 else x


def as_map(x: Tensor) -> Tensor:
    """The way back, a view: ``[..., H, W, C]`` to ``[..., C, H, W]``; ``[N, C]`` as it is."""
    return x.movedim(-1, -3) if x.dim() > 2 else x


def compile_options(device: str) -> dict:
    """Arguments for torch.compile: one program a shape; on a CPU, our layouts instead of its own choice, which would take
    every 4-D tensor for channels first."""
    return {"dynamic": False, **({"options": {"layout_optimization": False}} if device == "cpu" else {})}
