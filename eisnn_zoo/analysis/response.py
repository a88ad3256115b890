"""What a network answers to one input: evidence and spikes at every step, drawn alone or against another answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ..evaluating import evaluating
from ..figures import EXCITATION, GREEN, INHIBITION, clean, label, layer_axis, legend, percent, shades, short
from ..networks.base import SpikingNet
from .interventions import scale_g_i, scale_subtraction
from .probes import Activity, probe

RASTER = 48  # neurons of each layer in the raster, at most
CLASSES = 5  # classes whose evidence is drawn in colour


@dataclass(frozen=True)
class Response:
    """evidence: logits of every step, ``[T, classes]``. spikes: {layer: 0 or 1, ``[T, neurons]``}, as the layers run."""

    evidence: Tensor
    spikes: dict[str, Tensor]

    @property
    def evidence_so_far(self) -> Tensor:
        """Mean of the logits up to each step, less that of all classes, ``[T, classes]``; the last row decides."""
        mean = self.evidence.cumsum(0) / torch.arange(1, len(self.evidence) + 1)[:, None]
        return mean - mean.mean(1, keepdim=True)

    @property
    def probabilities(self) -> Tensor:
        """Of the classes, ``[classes]``."""
        return self.evidence.mean(0).softmax(0)

    @property
    def rates(self) -> list[float]:
        """Spikes per neuron and step, of each layer."""
        return [s.mean().item() for s in self.spikes.values()]

    @property
    def total_spikes(self) -> int:
        return round(sum(s.sum().item() for s in self.spikes.values()))

    @property
    def silent(self) -> bool:
        """Whether no spike reached the output layer: it has no bias, so nothing speaks for any class then."""
        return not self.evidence.any().item()


@torch.no_grad()
def respond(model: SpikingNet, x: Tensor, see: Callable[[Activity], None] = lambda activity: None) -> Response:
    """What model answers, in evaluation mode, to pixels ``[C, H, W]`` or frames ``[T, C, H, W]``.

    Args:
        see: is shown each layer's activity, as by :func:`~eisnn_zoo.analysis.probes.probe`.
    """
    spikes: dict[str, Tensor] = {}

    def keep(activity: Activity) -> None:
        spikes[activity.name] = activity["spikes"][:, 0].flatten(1).float().cpu()
        see(activity)

    with evaluating(model), probe(model, keep):
        evidence = model.forward_evidence(x[None])[:, 0].float().cpu()
    return Response(evidence, spikes)


def compare_inhibition(model: SpikingNet, x: Tensor, subtraction: float = 1.0,
                       division: float = 1.0) -> tuple[Response, Response]:
    """(response as trained, response with I_sub and with g_I multiplied by these), one object twice where both are 1.

    Args:
        subtraction, division: >= 0; see :func:`~eisnn_zoo.analysis.interventions.scale_subtraction` and ``scale_g_i``.
    """
    trained = respond(model, x)
    if subtraction == division == 1:
        return trained, trained
    with scale_g_i(model, division), scale_subtraction(model, subtraction):
        return trained, respond(model, x)


def foremost(now: Response, before: Response | None = None) -> list[int]:
    """The classes to draw: those with most evidence before, so that they keep their colours, and the one that leads now."""
    first = before or now
    classes = first.probabilities.argsort(descending=True, stable=True)[:CLASSES].tolist()
    leader = int(now.probabilities.argmax())
    return classes if leader in classes else [*classes[: CLASSES - 1], leader]


def raster_neurons(*responses: Response) -> dict[str, Tensor]:
    """{layer: neurons}: evenly drawn from those that fired in any of the responses, ordered by when they did in the first."""
    layers = responses[0].spikes
    band = raster_band(len(layers))
    chosen = {}
    for name, first in layers.items():
        fired = sum(r.spikes[name].sum(0) for r in responses).nonzero().flatten()
        some = fired[torch.linspace(0, max(0, len(fired) - 1), min(band, len(fired))).long()]
        order = (first[:, some] * 2.0 ** -torch.arange(len(first))[:, None]).sum(0).argsort(descending=True, stable=True)
        chosen[name] = some[order]
    return chosen


def raster_band(layers: int) -> int:
    """Lines of a layer in the raster of a network with so many."""
    return min(RASTER, max(6, 400 // layers))


# ---- drawing: now in colour, before in grey or dashed ----------------------------------------------------------------


def step_axis(ax: Axes, steps: int) -> None:
    clean(ax)
    ax.set_xlim(0.5, steps + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def draw_evidence(ax: Axes, label_names: tuple[str, ...], now: Response, before: Response | None = None) -> None:
    steps, classes = len(now.evidence), foremost(now, before)
    at, mean = np.arange(1, steps + 1), now.evidence_so_far.numpy()
    step_axis(ax, steps)
    others = [k for k in range(mean.shape[1]) if k not in classes]
    if others:
        ax.plot(at, mean[:, others], color="#dfe2e6", linewidth=1)
    for k, color, marker in zip(classes, (EXCITATION, INHIBITION, GREEN, "#cc79a7", "#e69f00"), "os^Dv"):
        ax.plot(at, mean[:, k], color=color, marker=marker, markersize=4.5, linewidth=1.8, label=short(label_names[k]))
        if before is not None:
            ax.plot(at, before.evidence_so_far[:, k], color=color, linewidth=1.1, linestyle=":")
    label(ax, "Evidence for the classes", "time step", "evidence: logit, less the average")
    legend(ax, loc="center left", bbox_to_anchor=(1, 0.5))


def draw_rates(ax: Axes, now: Response, before: Response | None = None) -> None:
    clean(ax)
    n = len(now.spikes)
    at, width, shift = np.arange(1, n + 1), 0.7, 0.0
    if before is not None:
        width, shift = 0.36, 0.19
        ax.bar(at - shift, before.rates, color="#d3d7dc", width=width)
    ax.bar(at + shift, now.rates, color=shades(n), width=width)
    layer_axis(ax, n)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))  # whole percents
    percent(ax.yaxis)
    ax.set_ylim(0, None if ax.dataLim.y1 > 0 else 0.01)
    label(ax, "Firing rates", "layer", "spikes per neuron and step")


def draw_raster(ax: Axes, response: Response, neurons: dict[str, Tensor]) -> None:
    """neurons: of :func:`raster_neurons`."""
    steps, n = len(response.evidence), len(neurons)
    step_axis(ax, steps)
    ax.grid(False)
    band = raster_band(n)
    lines = np.ones((band * n, steps, 20, 3))
    for i, (color, (name, some)) in enumerate(zip(shades(n), neurons.items())):
        own = lines[i * band : i * band + len(some), :, 1:-1]  # a gap between the steps
        own[(response.spikes[name][:, some] > 0).T.numpy()] = color[:3]
        ax.axhline((i + 1) * band, color="#c9cdd2", linewidth=0.8)
    ax.imshow(lines.reshape(band * n, -1, 3), extent=(0.5, steps + 0.5, 0, band * n), origin="lower", aspect="auto",
              interpolation="nearest")
    every = ceil(n / 20)
    ax.set_yticks([(i + 0.5) * band for i in range(0, n, every)], [str(i + 1) for i in range(0, n, every)])
    label(ax, f"Spikes of up to {band} neurons of each layer", "time step", "layer")
