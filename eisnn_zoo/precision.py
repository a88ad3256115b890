"""What stays in full precision, under autocast and on a GPU: folded weights, divisors and membranes; what need not: spikes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def strict_arithmetic() -> None:
    """No TF32 and no choice of algorithms by timing: a rounding moved is a spike flipped, and another run."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for backend, parts in ((torch.backends.cuda, ["matmul"]), (torch.backends.cudnn, ["conv", "rnn"]),
                           (torch.backends.mkldnn, ["matmul", "conv", "rnn"])):
        for part in filter(None, (getattr(backend, name, None) for name in parts)):
            if hasattr(part, "fp32_precision"):  # from torch 2.9 on, where somebody may have set all at once, and the above sets too little
                part.fp32_precision = "ieee"
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True


def autocasts(kind: str) -> bool:
    """Whether autocast is on for this kind of device (the meta device has none)."""
    return kind != "meta" and torch.is_autocast_enabled(kind)


def full_types(kind: str) -> AbstractContextManager:
    """Types as they are, also under autocast."""
    return torch.autocast(kind, enabled=False) if autocasts(kind) else nullcontext()


def matmul_full(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in the type of a and b, also under autocast."""
    if torch.jit.is_scripting():
        return a @ b
    with full_types(a.device.type):
        return a @ b


def full_precision(x: Tensor) -> Tensor:
    """float32 under autocast, x itself otherwise (a model cast to half as a whole stays half)."""
    if torch.jit.is_scripting():
        return x
    return x.float() if autocasts(x.device.type) else x


def compact_spikes(spikes: Tensor) -> Tensor:
    """Small integers are exact in half precision: under autocast they need no more bytes than that."""
    if torch.jit.is_scripting():
        return spikes
    kind = spikes.device.type
    return spikes.to(torch.get_autocast_dtype(kind)) if autocasts(kind) else spikes
