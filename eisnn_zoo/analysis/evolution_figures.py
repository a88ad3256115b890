"""Pictures of a network's training: the way of its measures, ridges of its distributions, and an animation.

Epochs go from light to dark, as layers do in the other pictures.
"""

from __future__ import annotations

import io

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import FixedLocator, NullLocator

from ..figures import (
    EXCITATION,
    FONT,
    GREEN,
    GREY,
    INHIBITION,
    INK,
    blank,
    clean,
    label,
    layer_axis,
    layer_legend,
    legend,
    percent,
    shades,
    symbol,
    three,
    to_png,
)
from .evolution import Evolution, coefficient, zeros
from .histograms import quantiles, shares
from .parameters import PARAMETERS, UNIFORM
from .ridges import bins, name_ridges, ridges, value_axis

ACTIVITY = ("I_EE", "I_sub", "D", "I", "membrane", "rate")
SIGNED = ("b_E", "I", "membrane")
RATE_BINS = 25
TITLES = {"rate": "firing rate"}
COLORS = {"W_EE": EXCITATION, "W_IE": INHIBITION, "W_EI": GREEN}


def whole(e: Evolution) -> Figure:
    """All of it in one picture."""
    rows = len(three(e.layers))
    heights = {"course": 3.2, "parameters": 0.7 + 2.3 * rows, "bimodality": 2.9, "currents": 0.7 + 2.3 * rows}
    if not e.first.parameters:
        del heights["parameters"], heights["bimodality"]
    figure = blank(12, sum(heights.values()))
    parts = dict(zip(heights, np.atleast_1d(figure.subfigures(len(heights), 1, height_ratios=list(heights.values())))))
    course(e, parts["course"])
    if e.first.parameters:
        distributions(e, PARAMETERS, parts["parameters"], "Parameters")
        bimodality(e, parts["bimodality"], "Bimodality of the parameters")
    distributions(e, ACTIVITY, parts["currents"], "Currents and firing rates")
    return figure


# ---- parts: each into a part of a figure, or a figure of its own -------------------------------------------------------


def course(e: Evolution, figure: FigureBase | None = None) -> FigureBase:
    figure = figure or blank(12, 3.2)
    a, b, c, *rest = figure.subplots(1, 4 if e.first.parameters else 3)
    for ax in (a, b, c, *rest):
        clean(ax)
        epoch_axis(ax, e)
    if e.metrics:
        when = [row["epoch"] for row in e.metrics]
        for key, color, name in (("train_top1", GREY, "training"), ("valid_top1", EXCITATION, "validation")):
            a.plot(when, [row[key] for row in e.metrics], color=color, linewidth=1.6, marker="o" if len(when) == 1 else "", markersize=3,
                   label=name)
        a.set_ylim(0, 102)
        legend(a)
    label(a, "Accuracy", "epoch", "top-1, %")
    for ax, key, title in ((b, "mean", "Firing rates"), (c, "silent", "Silent neurons")):
        for i, (color, layer) in enumerate(zip(shades(len(e.layers)), e.layers), 1):
            ax.plot(e.epochs, [_of(s.activity, layer)[key] for s in e.snapshots], color=color, linewidth=1.6, marker="o", markersize=3,
                    label=f"layer {i}")
        ax.set_ylim(0, 1.02 if key == "silent" else None)
        percent(ax.yaxis)
        label(ax, title, "epoch", "spikes per neuron and step" if key == "mean" else "share of the layer")
    layer_legend(c, ncols=2, columnspacing=0.8, handlelength=1.2)
    for d in rest:
        for name, color in COLORS.items():
            d.plot(e.epochs, [zeros(s, names=(name,)) for s in e.snapshots], color=color, linewidth=1.6, marker="o", markersize=3,
                   label=symbol(name))
        d.set_ylim(0, max(0.001, d.get_ylim()[1]))
        percent(d.yaxis)
        label(d, "Synapses at zero", "epoch", "share")
        legend(d)
    return figure


def distributions(e: Evolution, names: tuple[str, ...], figure: FigureBase | None = None, title: str = "") -> FigureBase:
    """A column for each name, a row for the first, the middle and the last layer."""
    layers = three(e.layers)
    figure = figure or blank(12, 0.5 + 2.4 * len(layers))
    names = tuple(name for name in names if any((layer, name) in e.first.histograms for layer in layers))
    axes = figure.subplots(len(layers), len(names), squeeze=False)
    if title:
        figure.suptitle(title, x=0.005, ha="left", fontsize=FONT["title"] + 2, color=INK, weight="bold")
    for i, (row, layer) in enumerate(zip(axes, layers)):
        for j, (ax, name) in enumerate(zip(row, names)):
            ridges(ax, _counts(e, layer, name), _bins(e, [layer], name), epoch_shades(len(e.snapshots)))
            if j == 0:
                name_ridges(ax, e.epochs)
            if name == "membrane":
                ax.axvline(e.first.threshold, color=INK, linewidth=0.8, linestyle=":", zorder=len(e.snapshots) + 1)
            if name == "rate":
                percent(ax.xaxis)
            label(ax, TITLES.get(name, symbol(name)) if i == 0 else "")
        row[0].set_ylabel(f"layer {e.layers.index(layer) + 1}\nepoch", fontsize=FONT["label"], color=INK)
    return figure


def _counts(e: Evolution, layer: str, name: str) -> list[np.ndarray]:
    return [s.histograms[layer, name] for s in e.snapshots if (layer, name) in s.histograms]


def _bins(e: Evolution, layers: list[str], name: str) -> np.ndarray | None:
    counts = [c for layer in layers for c in _counts(e, layer, name)]
    if name == "rate":
        top = max(q or 0.0 for c in counts for q in quantiles(c, (0.995,)))
        return np.linspace(0, top, RATE_BINS + 1) if top else None
    return bins(counts, name in SIGNED)


def bimodality(e: Evolution, figure: FigureBase | None = None, title: str = "") -> FigureBase:
    figure = figure or blank(12, 2.7)
    axes = figure.subplots(1, len(PARAMETERS), sharey=True)
    if title:
        figure.suptitle(title, x=0.005, ha="left", fontsize=FONT["title"] + 2, color=INK, weight="bold")
    output = [row["layer"] for row in e.first.parameters if row["layer"] not in e.layers]
    lines = [*zip(e.layers, shades(len(e.layers)), "-" * len(e.layers)), *((layer, GREY, "--") for layer in output[:1])]
    for ax, name in zip(axes, PARAMETERS):
        clean(ax)
        for layer, color, style in lines:
            rows = [[row for row in s.parameters if (row["layer"], row["parameter"]) == (layer, name)] for s in e.snapshots]
            if rows[0]:
                values = [coefficient(own) for (own,) in rows]
                ax.plot(e.epochs, [np.nan if v is None else v for v in values], color=color, linestyle=style, linewidth=1.5,
                        marker="o", markersize=3, label="output layer" if layer in output else None)
        ax.axhline(UNIFORM, color=GREY, linestyle=":", linewidth=1)
        epoch_axis(ax, e)
        ax.set_ylim(0, 1)
        label(ax, symbol(name), "epoch", "bimodality coefficient" if ax is axes[0] else "")
    if output:
        legend(axes[0], loc="lower right")
    return figure


def epoch_axis(ax: Axes, e: Evolution) -> None:
    """Early epochs take more room: where all is, a logarithmic axis that begins at 0."""
    last = max([s.epoch for s in e.snapshots] + [int(row["epoch"]) for row in e.metrics])
    if last > 12:
        ax.set_xscale("symlog", linthresh=1, linscale=0.4)
        ticks = [t for t in (0, 1, 3, 10, 30, 100, 300, 1000) if t < 0.7 * last or t == 0]
        ax.xaxis.set_major_locator(FixedLocator([*ticks, last]))
    else:
        ax.xaxis.set_major_locator(FixedLocator(list(range(0, last + 1, 1 if last <= 6 else 2))))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter("{x:.0f}")
    ax.set_xlim(-0.03 * last - 0.02 if last <= 12 else -0.1, last * (1.03 if last <= 12 else 1.1) + 0.02)


def epoch_shades(n: int) -> list:
    return [colormaps["magma_r"](0.18 + 0.67 * i / max(1, n - 1)) for i in range(n)]


def _of(rows: list[dict], layer: str) -> dict:
    return next(row for row in rows if row["layer"] == layer)


# ---- animation -------------------------------------------------------------------------------------------------------


def animation(e: Evolution) -> bytes:
    """A GIF with a frame for each recorded epoch; the last one stays."""
    from PIL import Image

    frames = [Image.open(io.BytesIO(_frame(e, i))).convert("RGB") for i in range(len(e.snapshots))]
    palette = frames[-1].quantize(96, dither=Image.Dither.NONE)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    out = io.BytesIO()
    indexed[0].save(out, "GIF", save_all=True, append_images=indexed[1:], loop=0, optimize=True,
                    duration=[900] * (len(indexed) - 1) + [3000])
    return out.getvalue()


def _frame(e: Evolution, i: int) -> bytes:
    s = e.snapshots[i]
    names = [*PARAMETERS, "membrane"] if e.first.parameters else ["I", "membrane"]
    figure = blank(10, 4.8 if len(names) > 3 else 2.8)
    axes = figure.subplots(2 if len(names) > 3 else 1, 4 if len(names) > 3 else 3).flat
    accuracy = e.accuracy(s.epoch)
    figure.suptitle(f"{e.name}: " + ("start" if s.epoch == 0 else f"epoch {s.epoch}")
                    + ("" if accuracy is None else f", {accuracy:.1f} % right"), x=0.01, ha="left", fontsize=12, color=INK)
    colors = shades(len(e.layers))
    for ax, name in zip(axes, names):
        clean(ax)
        ax.grid(False)
        ax.yaxis.set_major_locator(NullLocator())
        ax.spines["left"].set_visible(False)
        label(ax, symbol(name))
        edges = _bins(e, e.layers, name)
        if edges is None:
            continue
        for color, layer in zip(colors, e.layers):
            density = shares(s.histograms[layer, name], edges)
            ax.stairs(density / (density.max() or 1), edges, color=color, linewidth=1.4)
        value_axis(ax, edges)
        ax.set_ylim(0, 1.08)
        if name == "membrane":
            ax.axvline(s.threshold, color=INK, linewidth=0.8, linestyle=":")
    ax = axes[len(names)]
    clean(ax)
    ax.bar(np.arange(1, len(colors) + 1), [row["mean"] for row in s.activity], color=colors, width=0.7)
    ax.set_ylim(0, 1.05 * max(row["mean"] for each in e.snapshots for row in each.activity) or 1)
    percent(ax.yaxis)
    label(ax, "firing rate")
    layer_axis(ax, len(colors))
    return to_png(figure, dpi=80)
