"""Probes: what every layer of a network did, layer by layer, while it runs.

A probe reads and never writes, so the logits are the same bits with and without. It hands each layer's activity to a
function as soon as the layer has run and keeps nothing, so memory does not grow with the number of batches.

    record(model, x, ["I_EE", "spikes"])            one batch, kept
    stream(model, batches, FiringRates(), ...)      any number of batches, reduced on the way
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..ei import EILayer, stabilise
from ..evaluating import evaluating, together
from ..inference.folding import FoldedEI, FoldedLIF
from ..networks.base import SpikingNet
from ..networks.cells import Spiking

M = TypeVar("M", bound=nn.Module)

QUANTITIES = ("input", "I_EE", "I_IE", "I_sub", "I_div", "D", "I", "membrane", "spikes")
"""What can be recorded of a layer, in the paper's names (see ``eisnn_zoo.ei``). The membrane is the one before the reset."""


def spiking_layers(model: nn.Module) -> dict[str, Spiking]:
    """The layers of spiking neurons by module name, in the order in which they run.

    A layer has the same name in the network as it was trained, folded, and compiled.
    """
    return named(model, Spiking)


def named(model: nn.Module, kind: type[M]) -> dict[str, M]:
    """Modules of a kind, by what they are called without torch.compile and a folded network's pieces."""
    return {".".join(part for part in name.split(".") if part not in _WRAPPERS): module
            for name, module in model.named_modules() if isinstance(module, kind)}


_WRAPPERS = {"_orig_mod", "stage"}  # what these add to a name


@contextmanager
def with_hooks(model: nn.Module, handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """With these hooks. A compiled network runs uncompiled meanwhile: compiled code asks no hooks."""
    compiled = any(hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in model.modules())
    with together(handles), torch.compiler.set_stance("force_eager") if compiled else nullcontext():
        yield


class Activity:
    """One layer in one forward. ``activity[quantity]`` is ``[T, B, ...]``, computed when it is asked for.

    What a static image sends to the first layer is the same at every step and held once (an expanded view).

    Attributes:
        name: of the layer. layer: the module itself.
        merged_input: as the layer got it, ``[steps_in * B, ...]``; time_steps: T; steps_in: T, or 1 for what is held.
        literal: the E-I layer whose formula gives the currents; None where there is none.
    """

    def __init__(self, name: str, layer: Spiking, x: Tensor, current: Tensor, spikes: Tensor, time_steps: int, steps_in: int,
                 literal: EILayer | None):
        self.name, self.layer, self.time_steps, self.steps_in = name, layer, time_steps, steps_in
        self.merged_input, self._current, self._spikes = x, current, spikes
        self.literal = layer.current if isinstance(layer.current, EILayer) else literal
        self._currents: dict[str, Tensor] | None = None

    @torch.no_grad()
    def __getitem__(self, quantity: str) -> Tensor:
        """Raises: ValueError, for a name not in QUANTITIES or one that this layer does not have."""
        if quantity == "spikes":
            return self._spikes.detach().unflatten(0, (self.time_steps, -1))
        if quantity == "membrane":
            return self._membrane()
        value = {"input": self.merged_input, "I": self._current}.get(quantity)
        if value is None:
            value = self._ei_current(quantity)
        value = value.detach().unflatten(0, (self.steps_in, -1))
        return value.expand(self.time_steps, *value.shape[1:])

    def _membrane(self) -> Tensor:
        """The neuron's recursion again, with the spikes it sent."""
        lif, current, spikes = self.layer.lif, self["I"], self["spikes"]
        steps, v = [], current[0]
        for t in range(self.time_steps):
            if t > 0:
                v = v * lif.decay + current[t]
            steps.append(v)
            v = lif.after(v, spikes[t].to(v.dtype))
        return torch.stack(steps)

    def _ei_current(self, quantity: str) -> Tensor:
        if quantity not in QUANTITIES:
            raise ValueError(f"unknown quantity {quantity!r}; choose among {', '.join(QUANTITIES)}")
        if self._currents is None:
            with torch.autocast(self.merged_input.device.type, enabled=False):
                self._currents = self._all_ei_currents()
        if quantity not in self._currents:
            has = ("a folded layer: pass literal=, the network it was folded from" if isinstance(self.layer.current, FoldedEI)
                   else "no E-I layer")
            raise ValueError(f"{self.name} has no {quantity}: it is {has}")
        return self._currents[quantity]

    def _all_ei_currents(self) -> dict[str, Tensor]:
        if self.literal is not None:
            return self.literal.currents(self.merged_input.to(self.literal.g_i.dtype))
        if isinstance(self.layer.current, FoldedEI):
            return _folded_currents(self.layer.current, self.merged_input.to(self.layer.current.b_e.dtype))
        return {}


def _folded_currents(layer: FoldedEI, x: Tensor) -> dict[str, Tensor]:
    """What folding leaves: I_EE and I_sub are one sum by then."""
    _, i_ie = layer.synaptic(x).split(layer.sizes, -1)
    i_ie, i_div = (i.movedim(-1, 1) for i in (i_ie, F.linear(i_ie, layer.mix)))
    return {"I_IE": i_ie, "I_div": i_div, "D": stabilise(i_div, layer.stabilisation)}


@contextmanager
def probe(model: nn.Module, see: Callable[[Activity], None], layers: Iterable[str] | None = None,
          literal: SpikingNet | None = None) -> Iterator[None]:
    """While open, every forward of model calls ``see(activity)`` after each layer.

    A network folded for speed goes through a batch in pieces: see is called once for each, in the order of the images.

    Args:
        model: plain, folded or compiled. A compiled network runs uncompiled while a probe is open: compiled code has no
            layers to look into.
        layers: names, of :func:`spiking_layers`; None for all.
        literal: the network that a folded one came from, for I_EE and I_sub.
    Raises:
        ValueError: a layer the network does not have, or a network without spikes.
    """
    present = spiking_layers(model)
    if not present:
        raise ValueError("the network has no spiking layers to look into")
    chosen = list(present) if layers is None else list(layers)
    for name in chosen:
        if name not in present:
            raise ValueError(f"the network has no spiking layer {name!r}; it has {', '.join(present)}")
    sources = spiking_layers(literal) if literal is not None else {}
    currents: dict[str, Tensor] = {}

    def hooks_of(name: str, layer: Spiking):
        source = sources[name].current if name in sources else None
        overwritten = isinstance(layer.lif, FoldedLIF)  # it works in its input's memory

        def keep_current(_module, _args, output: Tensor) -> None:
            currents[name] = output.clone() if overwritten else output

        def hand_over(_module, args, output: Tensor) -> None:
            x, time_steps, steps_in = args
            see(Activity(name, layer, x, currents.pop(name), output, time_steps, steps_in, source))

        return layer.current.register_forward_hook(keep_current), layer.register_forward_hook(hand_over)

    with with_hooks(model, (handle for name in chosen for handle in hooks_of(name, present[name]))):
        yield


@torch.no_grad()
def record(model: nn.Module, x: Tensor, quantities: Iterable[str], layers: Iterable[str] | None = None,
           literal: SpikingNet | None = None) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
    """One batch in evaluation mode: (logits, {layer: {quantity: ``[T, B, ...]``}}); see :func:`probe` for the arguments."""
    recorded: dict[str, dict[str, list[Tensor]]] = {}
    quantities = list(quantities)

    def see(activity: Activity) -> None:
        kept = recorded.setdefault(activity.name, {q: [] for q in quantities})
        for q in quantities:
            kept[q].append(activity[q].clone())

    with evaluating(model), probe(model, see, layers, literal):
        logits = model(x)
    return logits, {name: {q: torch.cat(pieces, 1) for q, pieces in kept.items()} for name, kept in recorded.items()}


class Collector(Protocol):
    """Reduces what the probes show. ``see`` is called for each layer of each batch."""

    def see(self, activity: Activity) -> None: ...


@torch.no_grad()
def stream(model: nn.Module, batches: Iterable[Tensor], *collectors: Collector) -> None:
    """Runs model in evaluation mode over batches of images or frames; only the collectors keep anything."""
    def see(activity: Activity) -> None:
        for collector in collectors:
            collector.see(activity)

    with evaluating(model), probe(model, see):
        for x in batches:
            model(x)
