"""One picture through one network: spikes, currents and membranes, evidence for the classes, and where in the picture it lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..evaluating import evaluating
from ..figures import EXCITATION, FONT, GREEN, GREY, INHIBITION, INK, blank, label, legend, three
from ..networks.base import SpikingNet
from .probes import Activity
from .response import Response, draw_evidence, draw_raster, draw_rates, raster_neurons, respond, step_axis


@dataclass(frozen=True)
class Explanation:
    """label, probability: the network's answer. seen, facts: for the reader. reading: HTML."""

    figure: Figure
    label: str
    probability: float
    seen: list[str]
    facts: dict[str, str]
    reading: str


@dataclass(frozen=True)
class Cell:
    """One neuron's story: each ``[T]``; I_EE and I_sub are None in a layer without inhibition."""

    title: str
    membrane: np.ndarray
    spikes: np.ndarray
    current: np.ndarray
    i_ee: np.ndarray | None
    i_sub: np.ndarray | None
    threshold: float


READING = (
    "<b>Occlusion</b>: a square of the picture is painted in its mean colour and the network asked again; orange is where the "
    "probability of the answer falls, violet where it rises. <b>Evidence</b>: the logits averaged over the steps so far, less "
    "the mean of all classes; the last point decides. <b>Raster</b>: a bar is a spike; a line is a neuron, drawn evenly from "
    "those of the layer that fired, the earliest at the bottom. <b>Cells</b>: in each of three layers one that fired at about "
    "half of the steps: its membrane before the reset, with the threshold dotted and spikes marked.")
READING_INHIBITED = (
    " Below, the excitation and subtractive inhibition it received, in the layer's own units: division and gain make of their "
    "difference the current that drives the membrane.")


@torch.no_grad()
def explain(model: SpikingNet, x: np.ndarray | Tensor, label_names: tuple[str, ...]) -> Explanation:
    """How model, as trained and not folded, answers one input: pixels ``[C, H, W]`` or frames ``[T, C, H, W]``."""
    x = torch.as_tensor(x)
    cells: list[Cell] = []
    response = respond(model, x, lambda activity: cells.append(_example(activity, len(cells) + 1)))
    probabilities = response.probabilities
    order = probabilities.argsort(descending=True, stable=True)
    best = int(order[0])
    figure = _draw(x, occlusion(model, x, best), response, label_names, three(cells))

    spikes = response.spikes.values()
    steps = len(response.evidence)
    so_far = response.evidence_so_far.argmax(1).tolist()
    settled = next(t for t in range(steps) if all(k == so_far[-1] for k in so_far[t:])) + 1
    neurons = sum(s.shape[1] for s in spikes)
    fired = sum((s.sum(0) > 0).sum().item() for s in spikes)
    seen = ["No spike reaches the output layer: the network has no answer, all classes are as probable."] if response.silent else [
        f"The network says {label_names[best]} at {100 * probabilities[best]:.1f} %"
        + (f", then {label_names[order[1]]} at {100 * probabilities[order[1]]:.1f} %." if len(order) > 1 else "."),
        f"Its answer stands from step {settled} of {steps}."]
    seen.append(f"{100 * fired / neurons:.1f} % of its neurons fired at all.")
    facts = {"time steps T": str(steps), "spikes": f"{response.total_spikes:,}",
             "neurons": f"{neurons:,}", "answer stands from step": str(settled)}
    return Explanation(figure, label_names[best], probabilities[best].item(), seen, facts,
                       READING + (READING_INHIBITED if model.kind == "ei" else ""))


@torch.no_grad()
def occlusion(model: SpikingNet, x: Tensor, target: int, batch_size: int = 32) -> Tensor:
    """How much log-probability of class target a square of the picture is worth, ``[H, W]``.

    Squares of a quarter of the picture's side, a quarter of that apart, take the picture's mean colour (events: none); a pixel
    gets the mean over the squares that cover it. No gradient, so no surrogate stands between the map and the spikes.

    Args:
        x: pixels ``[C, H, W]`` or frames ``[T, C, H, W]``.
    """
    height, width = x.shape[-2:]
    side = max(1, min(height, width) // 4)
    step = max(1, side // 4)
    fill = x.mean((-2, -1), keepdim=True) if x.dim() == 3 else torch.zeros_like(x[..., :1, :1])
    places = [(i, j) for i in range(0, height - side + step, step) for j in range(0, width - side + step, step)]
    worth, covered = torch.zeros(height, width), torch.zeros(height, width)
    with evaluating(model):
        whole = F.log_softmax(model(x[None]), 1)[0, target]
        for part in (places[k : k + batch_size] for k in range(0, len(places), batch_size)):
            painted = x.repeat(len(part), *[1] * x.dim())
            for image, (i, j) in zip(painted, part):
                image[..., i : i + side, j : j + side] = fill
            lost = whole - F.log_softmax(model(painted), 1)[:, target]
            for (i, j), value in zip(part, lost):
                worth[i : i + side, j : j + side] += value.item()
                covered[i : i + side, j : j + side] += 1
    return worth / covered.clamp(min=1)


def _example(activity: Activity, number: int) -> Cell:
    """The cell that fired at about half of the steps, and among such the one whose membrane moved most."""
    spikes = activity["spikes"][:, 0].flatten(1)
    membrane = activity["membrane"][:, 0].flatten(1)
    moved = membrane.amax(0) - membrane.amin(0)
    off = (spikes.mean(0) - 0.5).abs()
    cell = torch.where(off == off.min(), moved, -1.0).argmax()

    def of(quantity: str) -> np.ndarray:
        return activity[quantity][:, 0].flatten(1)[:, cell].float().cpu().numpy()

    inhibited = activity.literal is not None
    return Cell(f"A cell of layer {number}", of("membrane"), of("spikes"), of("I"), of("I_EE") if inhibited else None,
                of("I_sub") if inhibited else None, activity.layer.lif.threshold)


# ---- drawing ---------------------------------------------------------------------------------------------------------


def _draw(x: Tensor, map_: Tensor, response: Response, label_names: tuple[str, ...], cells: list[Cell]) -> Figure:
    inhibited = cells[0].i_ee is not None
    figure = blank(11, 10.5 if inhibited else 9.2)
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=(1, 1, 1.15 if inhibited else 0.75))
    a, b, c = top.subplots(1, 3, width_ratios=(1, 1.15, 1.9))
    picture = _picture(x)
    _show(a, picture, "What it sees")
    _show(b, picture.mean(2) if picture.ndim == 3 else picture, "Where the evidence lies (occlusion)")
    limit = max(map_.abs().max().item(), 1e-6)
    drawn = b.imshow(map_.numpy(), cmap="PuOr_r", vmin=-limit, vmax=limit, alpha=0.72, interpolation="bilinear")
    bar = top.colorbar(drawn, ax=b, shrink=0.8)
    bar.set_label("log-probability lost", fontsize=8.5)
    bar.ax.tick_params(labelsize=8)
    draw_evidence(c, label_names, response)
    d, e = middle.subplots(1, 2, width_ratios=(1.9, 1))
    draw_raster(d, response, raster_neurons(response))
    draw_rates(e, response)
    parts = (_membrane, _drive) if inhibited else (_membrane,)
    axes = bottom.subplots(len(parts), len(cells), squeeze=False, height_ratios=(1.2, 1)[: len(parts)], sharex=True)
    for row, draw in zip(axes, parts):
        for ax, cell in zip(row, cells):
            draw(ax, cell)
        legend(row[0])
    for ax in axes[-1]:
        ax.set_xlabel("time step", fontsize=FONT["label"], color=INK)
    return figure


def _picture(x: Tensor) -> np.ndarray:
    """``[H, W, 3]`` or ``[H, W]`` in [0, 1]; frames of events as their sum, one polarity red and the other blue."""
    if x.dim() == 4:
        counts = x.sum(0)
        x = counts / counts.max().clamp(min=1e-6)
    if x.shape[0] == 2:
        x = torch.stack([x[0], torch.zeros_like(x[0]), x[1]])
    return (x[0] if x.shape[0] == 1 else x[:3].permute(1, 2, 0)).clamp(0, 1).numpy()


def _show(ax: Axes, image: np.ndarray, title: str) -> None:
    ax.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    label(ax, title)


def _membrane(ax: Axes, cell: Cell) -> None:
    at = np.arange(1, len(cell.membrane) + 1)
    step_axis(ax, len(at))
    ax.plot(at, cell.membrane, color=INK, marker="o", markersize=3.5, linewidth=1.5, label="membrane")
    ax.plot(at, cell.current, color=GREEN, linewidth=1.2, linestyle="--", label="current I")
    ax.axhline(cell.threshold, color=GREY, linestyle=":", linewidth=1)
    fired = cell.spikes > 0
    ax.plot(at[fired], cell.membrane[fired], "|", color=EXCITATION, markersize=16, markeredgewidth=2, label="spike")
    ax.margins(y=0.15)
    label(ax, cell.title, "", f"membrane, threshold {cell.threshold:g}")


def _drive(ax: Axes, cell: Cell) -> None:
    at = np.arange(1, len(cell.membrane) + 1)
    step_axis(ax, len(at))
    ax.plot(at, cell.i_ee, color=EXCITATION, marker="o", markersize=3.5, linewidth=1.5, label="excitation $I_{EE}$")
    ax.plot(at, cell.i_sub, color=INHIBITION, marker="s", markersize=3.5, linewidth=1.5, label="inhibition $I_{sub}$")
    ax.set_ylim(0, 1.1 * float(max(cell.i_ee.max(), cell.i_sub.max())) or 1)  # no marker on the edge
    label(ax, "", "", "drive")
