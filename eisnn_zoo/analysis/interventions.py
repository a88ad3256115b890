"""What happens if: changes to a trained network that last as long as a ``with`` block.

    with lesion(model, 0.5, by="strongest"):
        logits = model(x)

Everything is put back exactly, also after an error. A change made to weights is seen by ``fold(model)`` inside the block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from ..ei import EILayer, EISynapses
from ..evaluating import evaluating
from ..inference.folding import FoldedEI
from .gain import at_contrast, thin
from .parameters import inhibitory_strength
from .probes import Activity, named, spiking_layers, stream, with_hooks


def ei_layers(model: nn.Module) -> dict[str, EILayer]:
    """The E-I layers by module name, without the output layer. Raises: ValueError, where the network has none."""
    layers = named(model, EILayer)
    if not layers:
        folded = any(isinstance(m, FoldedEI) for m in model.modules())
        raise ValueError("the network has no inhibitory cells to change: "
                         + ("it is folded, so change the network it came from" if folded else "it is no E-I network"))
    return layers


@contextmanager
def _changed(parameters: Iterable[nn.Parameter], change: Callable[[nn.Parameter], Tensor]) -> Iterator[None]:
    """Each parameter's value replaced by change(parameter), which must not write to it."""
    parameters = list(parameters)
    if not all(isinstance(p, nn.Parameter) for p in parameters):
        raise ValueError("these weights are computed from others, which a change of them would not reach: "
                         "torch.nn.utils.parametrize.remove_parametrizations first")
    saved = [(p, p.detach().clone()) for p in parameters]
    try:
        with torch.no_grad():
            for p, _ in saved:
                p.copy_(change(p))
        yield
    finally:
        with torch.no_grad():
            for p, value in saved:
                p.copy_(value)


@contextmanager
def _before(model: nn.Module, change: Callable) -> Iterator[None]:
    """change(module, arguments) gives what the network gets in their place; from when the block begins, as all changes here."""
    with with_hooks(model, [model.register_forward_pre_hook(change)]):
        yield


def _share(fraction: float, what: str) -> None:
    if not 0 <= fraction <= 1:
        raise ValueError(f"{what} is a share in [0, 1], got {fraction}")


# ---- inhibition ------------------------------------------------------------------------------------------------------


def lesion(model: nn.Module, fraction: float, by: str = "random", seed: int = 0) -> AbstractContextManager[None]:
    """Silences a share of the inhibitory cells of every E-I layer, as many as :func:`whole_cells` says: their column of W_EI
    becomes 0, for both paths.

    Args:
        fraction: of the cells, in [0, 1].
        by: "random" (by seed), "strongest" or "weakest" first: by what they can take away, the sum of W_EI times that of W_IE.
    Raises:
        ValueError: another fraction or order; a network without inhibitory cells.
    """
    _share(fraction, "the part of cells to lesion")
    if by not in ("random", "strongest", "weakest"):
        raise ValueError(f"cells are lesioned by 'random', 'strongest' or 'weakest', not {by!r}")
    rng = torch.Generator().manual_seed(seed)
    silenced: dict[nn.Parameter, Tensor] = {}
    for layer in ei_layers(model).values():
        order = (torch.randperm(layer.n_i, generator=rng) if by == "random"
                 else inhibitory_strength(layer).argsort(descending=by == "strongest", stable=True))
        silenced[layer.ei.weight] = order[: whole_cells(layer, fraction)].to(layer.ei.weight.device)
    return _changed(silenced, lambda w_ei: w_ei.detach().index_fill(1, silenced[w_ei], 0.0))


def whole_cells(layer: EILayer, fraction: float) -> int:
    """How many of a layer's inhibitory cells a share in [0, 1] comes to, rounded: of 16 cells 5 % are 1, and 2 % none."""
    return round(fraction * layer.n_i)


def scale_g_i(model: nn.Module, factor: float) -> AbstractContextManager[None]:
    """Multiplies g_I, and with it the divisor, by factor >= 0 in every E-I layer."""
    if factor < 0:
        raise ValueError(f"g_I is non-negative and cannot be scaled by {factor}")
    return _changed([layer.g_i for layer in ei_layers(model).values()], lambda g: g * factor)


def scale_subtraction(model: nn.Module, factor: float) -> AbstractContextManager[None]:
    """I_EE - factor * I_sub in place of I_EE - I_sub in every E-I layer; the output layer keeps its own. 0 switches it off."""
    def hook(layer: EILayer, args: tuple[Tensor], current: Tensor) -> Tensor:
        c = layer.currents(args[0])
        g_e = layer.g_e[:, None, None] if current.dim() == 4 else layer.g_e
        return current + g_e * (1 - factor) * c["I_sub"] / c["D"]

    return with_hooks(model, (layer.register_forward_hook(hook) for layer in ei_layers(model).values()))


def mean_divisors(model: nn.Module, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """{E-I layer: geometric mean of its finite divisors D over these images, one for each cell, ``[n_E]``}."""
    sums: dict[str, list] = {}

    class See:
        def see(self, activity: Activity) -> None:
            log = activity["D"].log().flatten(0, 1)
            finite = log.isfinite()
            total = sums.setdefault(activity.name + ".current", [0.0, 0.0])
            dims = [0, *range(2, log.dim())]
            total[0] = total[0] + torch.where(finite, log, 0.0).sum(dims, dtype=torch.float64)
            total[1] = total[1] + finite.sum(dims)

    stream(model, batches, See())
    return {name: (total / n.clamp(min=1)).exp().float() for name, (total, n) in sums.items()}


def fixed_division(model: nn.Module, divisors: dict[str, Tensor]) -> AbstractContextManager[None]:
    """Division that no longer listens to the input: constants (of :func:`mean_divisors`, ``[n_E]`` a layer) in place of D.

    Taking 1 for the divisor would only show that the weights were made for another scale.
    """
    def hook_of(divisor: Tensor):
        def hook(layer: EILayer, args: tuple[Tensor], current: Tensor) -> Tensor:
            net = layer.synaptic(args[0], layer.signed_weight(layer.w_ei()))
            per_cell = [layer.g_e / divisor.to(current), layer.b_e]
            gain, b_e = [p[:, None, None] for p in per_cell] if current.dim() == 4 else per_cell
            return gain * net + b_e

        return hook

    layers = ei_layers(model)
    return with_hooks(model, (layers[name].register_forward_hook(hook_of(d)) for name, d in divisors.items()))


# ---- weights, inputs, spikes -----------------------------------------------------------------------------------------


def flip_signs(model: nn.Module, fraction: float, seed: int = 0) -> AbstractContextManager[None]:
    """Breaks Dale's law: a random share in [0, 1] of the excitatory synapses W_EE turn inhibitory."""
    _share(fraction, "the part of signs to flip")
    rng = torch.Generator().manual_seed(seed)
    weights = [layer.ee.weight for layer in ei_layers(model).values()]
    return _changed(weights, lambda w: torch.where((torch.rand(w.shape, generator=rng) < fraction).to(w.device), -w, w))


def weight_noise(model: nn.Module, std: float, seed: int = 0) -> AbstractContextManager[None]:
    """Every weight w becomes w (1 + std * normal), synapses of E-I layers held at >= 0: imprecise synapses.

    Weights of convolutions and linear layers in BN networks are treated alike, without the bound.
    """
    rng = torch.Generator().manual_seed(seed)
    bounded = {s.weight for m in model.modules() if isinstance(m, EISynapses) for s in (m.ee, m.ie, m.ei)}
    weights = bounded | {m.weight for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    given = {p: i for i, p in enumerate(model.parameters())}
    order = sorted(weights, key=lambda w: given.get(w, -1))  # the same draws every time

    def noisy(w: nn.Parameter) -> Tensor:
        noise = torch.randn(w.shape, generator=rng).to(w)
        value = w * (1 + std * noise)
        return value.clamp(min=0) if w in bounded else value

    return _changed(order, noisy)


def input_noise(model: nn.Module, std: float, seed: int = 0) -> AbstractContextManager[None]:
    """Adds normal noise of this deviation to the pixels, and keeps them in [0, 1] (in >= 0 where they exceeded 1: counts of events)."""
    rng = torch.Generator().manual_seed(seed)

    def hook(_module, args):
        x, *rest = args
        noisy = (x + std * torch.randn(x.shape, generator=rng).to(x)).clamp(min=0)
        return (noisy.clamp(max=1) if x.max() <= 1 else noisy, *rest)

    return _before(model, hook)


def input_contrast(model: nn.Module, level: float, about: str = "black") -> AbstractContextManager[None]:
    """Shows the images at a share of their contrast, see :func:`~eisnn_zoo.analysis.gain.at_contrast`."""
    return _before(model, lambda _module, args: (at_contrast(args[0], level, about), *args[1:]))


def drop_events(model: nn.Module, fraction: float, seed: int = 0) -> AbstractContextManager[None]:
    """Each event of the input is lost with this probability, as by a less sensitive event camera."""
    _share(fraction, "the part of events to drop")
    rng = torch.Generator().manual_seed(seed)
    return _before(model, lambda _module, args: (thin(args[0], 1 - fraction, rng), *args[1:]))


def drop_spikes(model: nn.Module, fraction: float, seed: int = 0) -> AbstractContextManager[None]:
    """Each spike of every layer is lost with this probability."""
    _share(fraction, "the part of spikes to drop")
    rng = torch.Generator().manual_seed(seed)

    def hook(_module, _args, spikes: Tensor) -> Tensor:
        return spikes * (torch.rand(spikes.shape, generator=rng) >= fraction).to(spikes)

    return with_hooks(model, (layer.register_forward_hook(hook) for layer in spiking_layers(model).values()))


# ---- accuracy --------------------------------------------------------------------------------------------------------


class Intervention(Protocol):
    def __call__(self, model: nn.Module, level: float) -> AbstractContextManager[None]: ...


@torch.no_grad()
def accuracy(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Top-1 accuracy in %, in evaluation mode."""
    with evaluating(model):
        right = torch.tensor([[(model(x).argmax(1) == y).sum().item(), len(y)] for x, y in batches]).sum(0)
    return 100 * right[0].item() / right[1].item()


def curve(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], intervention: Intervention,
          levels: Iterable[float]) -> list[dict]:
    """Top-1 accuracy (%) at each level; batches of (images, labels) are run through once for each, so not a generator."""
    rows = []
    for level in levels:
        with intervention(model, level):
            rows.append({"level": level, "top1": accuracy(model, batches)})
    return rows

