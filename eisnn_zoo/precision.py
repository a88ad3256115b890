"""What stays in full precision under autocast: folded weights, divisors and membranes; and what need not: spikes."""

from __future__ import annotations

import torch
from torch import Tensor


def matmul_full(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in the type of a and b, also under autocast."""
    if torch.jit.is_scripting():
        return a @ b
    with torch.autocast(a.device.type, enabled=False):
        return a @ b


def full_precision(x: Tensor) -> Tensor:
    """float32 under autocast, x itself otherwise (a model cast to half as a whole stays half)."""
    if torch.jit.is_scripting():
        return x
    return x.float() if torch.is_autocast_enabled(x.device.type) else x


def compact_spikes(spikes: Tensor) -> Tensor:
    """Small integers are exact in half precision: under autocast they need no more bytes than that."""
    if torch.jit.is_scripting():
        return spikes
    kind = spikes.device.type
    return spikes.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else spikes
