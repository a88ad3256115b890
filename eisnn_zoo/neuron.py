"""The excitatory neuron: leaky integrate-and-fire, run over all time steps inside one call.

    v <- (1 - 1/tau) v + I ;  s = 1 if v >= threshold else 0 ;  v <- v - threshold * s      (paper Eq. 1-3)

The membrane starts at 0 in every call and nothing survives it, so two calls never interact.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .layout import as_map, in_memory_order
from .precision import compact_spikes, full_precision


def _sigmoid(u: Tensor, alpha: float) -> Tensor:
    s = torch.sigmoid(alpha * u)
    return alpha * s * (1 - s)


def _arctan(u: Tensor, alpha: float) -> Tensor:
    return alpha / 2 / (1 + (math.pi / 2 * alpha * u) ** 2)


def _triangle(u: Tensor, alpha: float) -> Tensor:
    return alpha * (1 - alpha * u.abs()).clamp(min=0)


def _rectangle(u: Tensor, alpha: float) -> Tensor:
    return alpha * (alpha * u.abs() < 0.5).to(u.dtype)


SURROGATES = {"sigmoid": _sigmoid, "arctan": _arctan, "triangle": _triangle, "rectangle": _rectangle}
"""Derivative used for ds/dv, as a function of u = v - threshold and the slope alpha; each has area 1."""


class _Spike(torch.autograd.Function):
    """Heaviside step forward, the surrogate's derivative backward. Of the form that torch.func (per-sample gradients) asks for."""

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, surrogate: str) -> Tensor:
        return (u >= 0).to(u.dtype)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, str], output: Tensor) -> None:
        u, ctx.surrogate = inputs
        ctx.save_for_backward(u)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (u,) = ctx.saved_tensors
        return grad * SURROGATES[ctx.surrogate](u, 1.0), None


def spike(u: Tensor, surrogate: str, alpha: float) -> Tensor:
    """1 where ``u >= 0``, else 0, differentiable through the named surrogate."""
    if torch.jit.is_scripting():
        return (u >= 0).to(u.dtype)
    # A surrogate of slope alpha is that of slope 1 at alpha u, times alpha, which the chain rule adds: so the function takes no number,
    # which torch.compile would turn into a symbol that it cannot bring in.
    return _Spike.apply(u * alpha, surrogate)


def _transformed() -> bool:
    """Inside torch.func's transforms, where nobody can say how a tensor lies in memory."""
    if torch.jit.is_scripting():
        return False
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active()


class LIF(nn.Module):
    """Leaky integrate-and-fire neurons.

    Args:
        tau: membrane time constant in steps, > 1 (2: the membrane halves at every step).
        threshold: firing threshold, > 0.
        surrogate: one of :data:`SURROGATES`.
        alpha: slope of the surrogate, > 0.
        reset: "soft" subtracts the threshold after a spike, "hard" sets the membrane to 0. Detached from the graph.

    Shape: current ``[T, B, ...]`` in, spikes (0 or 1) ``[T, B, ...]`` out. A current of one step, ``[1, B, ...]``, is
    held for all T steps: what a static image does to the first layer; another number of steps is a ValueError. Under autocast
    the membrane is float32 and the spikes, which are exact in any precision, leave in the autocast type.
    """

    def __init__(self, tau: float = 2.0, threshold: float = 1.0, surrogate: str = "sigmoid", alpha: float = 4.0,
                 reset: str = "soft"):
        super().__init__()
        if not tau > 1:
            raise ValueError(f"tau must be above 1, got {tau}")
        if not 0 < threshold < math.inf:
            raise ValueError(f"threshold must be above 0 and finite, got {threshold}")
        if surrogate not in SURROGATES:
            raise ValueError(f"unknown surrogate {surrogate!r}; choose one of {', '.join(SURROGATES)}")
        if not 0 < alpha < math.inf:
            raise ValueError(f"alpha must be above 0 and finite, got {alpha}")
        if reset not in ("soft", "hard"):
            raise ValueError(f"reset must be 'soft' or 'hard', got {reset!r}")
        self.tau, self.threshold, self.alpha = float(tau), float(threshold), float(alpha)
        self.surrogate, self.reset = surrogate, reset

    def forward(self, current: Tensor, time_steps: int) -> Tensor:
        current = full_precision(current)
        held = self.held(current, time_steps)
        channels_last = current.dim() == 5 and not _transformed() and current[0].is_contiguous(memory_format=torch.channels_last)
        if channels_last:
            current = in_memory_order(current)
        v = current[0]
        spikes: list[Tensor] = []
        for t in range(time_steps):
            if t > 0:
                v = v * self.decay + current[0 if held else t]
            s = spike(v - self.threshold, self.surrogate, self.alpha)
            v = self.after(v, s.detach())
            spikes.append(s)
        out = compact_spikes(torch.stack(spikes))
        return as_map(out) if channels_last else out

    @property
    def decay(self) -> float:
        """What is left of the membrane after a step."""
        return 1.0 - 1.0 / self.tau

    def held(self, current: Tensor, time_steps: int) -> bool:
        """Whether it is one step's current for all T. Raises ValueError."""
        if current.shape[0] != 1 and current.shape[0] != time_steps:
            raise ValueError(f"expected the currents of {time_steps} steps, or of 1 that is held, got those of {current.shape[0]}")
        return current.shape[0] == 1

    def after(self, v: Tensor, spikes: Tensor) -> Tensor:
        """The membrane v once the neurons that sent spikes (0 or 1) are reset."""
        return v - spikes * self.threshold if self.reset == "soft" else v * (1 - spikes)

    def extra_repr(self) -> str:
        return (f"tau={self.tau:g}, threshold={self.threshold:g}, surrogate={self.surrogate}, alpha={self.alpha:g}, "
                f"reset={self.reset}")
