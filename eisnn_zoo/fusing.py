"""Whether a layer's division and neurons run in the fused kernels of eisnn_zoo.fused: on a GPU, where they agree with torch.

They are tried on a small tensor before their first use on a device; where they cannot be compiled or give another spike, the
plain path is taken, silently. ``EISNN_ZOO_FUSED=0`` switches them off.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules

from .ei import PLAIN, excitatory_current
from .neuron import LIF
from .precision import autocasts

HOOKS = ("forward", "forward_pre", "backward", "backward_pre")
_logger = logging.getLogger("eisnn_zoo")


def fused_kernel(current: nn.Module, lif: LIF, x: Tensor) -> Callable[..., Tensor] | None:
    """:func:`eisnn_zoo.fused.divide_and_fire` for input x, or None where the plain path is to be taken.

    That is so on other devices, inside a compiler (which fuses by itself) and torch.func's transforms, in other arithmetic than
    float32, in the ablations of the stabilization, of an empty batch, of layers and neurons that somebody derived from ours,
    and while a hook wants to see the current or the spikes. The kernels have no second derivative: EISNN_ZOO_FUSED=0 for that.
    """
    if torch.compiler.is_compiling() or not _possible(x.device.type) or torch._C._are_functorch_transforms_active() or not len(x):
        return None
    if type(current) not in PLAIN or type(lif) is not LIF or current.stabilisation != "adaptive":
        return None
    if current.g_e.dtype != torch.float32 or not (x.dtype == torch.float32 or autocasts(x.device.type)):
        return None
    if hooked(current) or hooked(lif) or any(getattr(modules, f"_global_{kind}_hooks") for kind in HOOKS):
        return None
    return _tried(x.device, lif.surrogate, lif.reset)


def hooked(module: nn.Module) -> bool:
    """Whether somebody's hook sees or changes what it computes."""
    return any(getattr(module, f"_{kind}_hooks") for kind in HOOKS)


@contextlib.contextmanager
def unhooked(model: nn.Module) -> Iterator[None]:
    """For a forward of our own, of which nobody's hook is to know."""
    kept = {(module, f"_{kind}_hooks"): getattr(module, f"_{kind}_hooks") for module in model.modules() for kind in HOOKS}
    try:
        for module, name in kept:
            setattr(module, name, OrderedDict())
        yield
    finally:
        for (module, name), hooks in kept.items():
            setattr(module, name, hooks)


def fused_on(device: torch.device) -> bool:
    """Whether the zoo's own neurons are fused on this device."""
    lif = LIF()
    return _possible(device.type) and _tried(device, lif.surrogate, lif.reset) is not None


def _possible(kind: str) -> bool:
    """Triton's interpreter, for tests, runs on the processor."""
    return (kind == "cuda" or os.environ.get("TRITON_INTERPRET") == "1") and os.environ.get("EISNN_ZOO_FUSED") != "0"


@functools.cache
def _tried(device: torch.device, surrogate: str, reset: str) -> Callable[..., Tensor] | None:
    try:
        from .fused import divide_and_fire

        agrees = all(_agrees(divide_and_fire, device, LIF(surrogate=surrogate, reset=reset), steps) for steps in (1, 4))
    except Exception as error:  # no triton, no compiler, an unknown device: whatever it is, torch does the same
        _logger.info("fused kernels are not used on %s: %s", device, error)
        return None
    if not agrees:
        _logger.info("fused kernels are not used on %s: they differ from torch there", device)
    return divide_and_fire if agrees else None


def divide_and_fire_plainly(net: Tensor, i_div: Tensor, g_e: Tensor, b_e: Tensor, lif: LIF, steps_in: int, time_steps: int) -> Tensor:
    """What :func:`eisnn_zoo.fused.divide_and_fire` computes, by torch."""
    return lif(excitatory_current(net, i_div, g_e, b_e, "adaptive").unflatten(0, (steps_in, -1)), time_steps).flatten(0, 1)


def spikes_and_gradients(function: Callable[..., Tensor], inputs: list[Tensor], weights: Tensor, *setting) -> list[Tensor]:
    """The spikes of either of the two, and the gradients by its inputs, net, I_div, g_E and b_E, of the spikes' sum with these weights."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    spikes = function(*inputs, *setting)
    return [spikes.detach(), *torch.autograd.grad((spikes * weights.to(spikes.dtype)).sum(), inputs)]


def _agrees(kernel: Callable[..., Tensor], device: torch.device, lif: LIF, steps_in: int) -> bool:
    """Equal spikes and close gradients on drives with zero divisors and a silent slice."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):  # also of the tensors made here
        time_steps, rng = 4, torch.Generator().manual_seed(0)  # nobody else's random numbers
        shape = (steps_in * 3, 5, 7, 20)
        net, i_div = torch.randn(shape, generator=rng), torch.rand(shape, generator=rng)
        i_div[i_div < 0.2] = 0
        net[0], i_div[0] = 0, 0
        values = [v.to(device) for v in (net, i_div, torch.rand(20, generator=rng) + 0.5, torch.rand(20, generator=rng))]
        weights = torch.randn(time_steps * 3, *shape[1:], generator=rng).to(device)
        (spikes, *gradients), (expected, *others) = (
            spikes_and_gradients(function, values, weights, lif, steps_in, time_steps) for function in (kernel, divide_and_fire_plainly))
    close = (torch.allclose(a, b, 1e-4, 1e-5 * b.abs().max().item()) for a, b in zip(gradients, others))
    return torch.equal(spikes, expected) and all(close)
