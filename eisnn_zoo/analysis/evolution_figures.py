"""Pictures of a network's training: the way of its measures, ridges of its distributions, and an animation.

Epochs go from light to dark, as layers do in the other pictures.
"""

from __future__ import annotations

import io

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullFormatter, NullLocator

from .evolution import PARAMETERS, Evolution, coefficient, zeros
from .figures import EXCITATION, FONT, GREEN, GREY, INHIBITION, INK, clean, label, layer_axis, legend, percent, shades
from .histograms import quantiles, shares
from .parameters import UNIFORM

ACTIVITY = ("I_EE", "I_sub", "D", "I", "membrane", "rate")
SIGNED = ("b_E", "I", "membrane")
BINS, RATE_BINS = 60, 25
COLORS = {"W_EE": EXCITATION, "W_IE": INHIBITION, "W_EI": GREEN}


def course(e: Evolution) -> Figure:
    figure = _figure(12, 3.2)
    _draw_course(figure, e)
    return figure


def distributions(e: Evolution, names: tuple[str, ...]) -> Figure:
    """A column for each name, a row for the first, the middle and the last layer."""
    rows = len(_some_layers(e))
    figure = _figure(12, 0.5 + 2.4 * rows)
    _draw_ridges(figure, e, names)
    return figure


def bimodality(e: Evolution) -> Figure:
    figure = _figure(12, 2.7)
    _draw_bimodality(figure, e)
    return figure


def whole(e: Evolution) -> Figure:
    """All of it in one picture."""
    rows = len(_some_layers(e))
    heights = {"course": 3.2, "parameters": 0.7 + 2.3 * rows, "bimodality": 2.9, "currents": 0.7 + 2.3 * rows}
    if not e.first.parameters:
        del heights["parameters"], heights["bimodality"]
    figure = _figure(12, sum(heights.values()))
    parts = dict(zip(heights, np.atleast_1d(figure.subfigures(len(heights), 1, height_ratios=list(heights.values())))))
    _draw_course(parts["course"], e)
    if e.first.parameters:
        _draw_ridges(parts["parameters"], e, PARAMETERS, "Parameters")
        _draw_bimodality(parts["bimodality"], e, "Bimodality of the parameters")
    _draw_ridges(parts["currents"], e, ACTIVITY, "Currents and firing rates")
    return figure


# ---- parts -----------------------------------------------------------------------------------------------------------


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw_course(figure: FigureBase, e: Evolution) -> None:
    a, b, c, d = figure.subplots(1, 4)
    for ax in (a, b, c, d):
        clean(ax)
        epoch_axis(ax, e)
    if e.metrics:
        when = [row["epoch"] for row in e.metrics]
        for key, color, name in (("train_top1", GREY, "training"), ("valid_top1", EXCITATION, "validation")):
            a.plot(when, [row[key] for row in e.metrics], color=color, linewidth=1.6, label=name)
        a.set_ylim(0, 100)
        legend(a)
    label(a, "Accuracy", "epoch", "top-1, %")
    for ax, key, title in ((b, "mean", "Firing rates"), (c, "silent", "Silent neurons")):
        for i, (color, layer) in enumerate(zip(shades(len(e.layers)), e.layers), 1):
            ax.plot(e.epochs, [_of(s.activity, layer)[key] for s in e.snapshots], color=color, linewidth=1.6, marker="o", markersize=3,
                    label=f"layer {i}")
        ax.set_ylim(0, 1.02 if key == "silent" else None)
        percent(ax.yaxis)
        label(ax, title, "epoch", "spikes per neuron and step" if key == "mean" else "share of the layer")
    if len(e.layers) <= 8:
        legend(c, ncols=2, columnspacing=0.8, handlelength=1.2, loc="best")
    if e.first.parameters:
        for name, color in COLORS.items():
            d.plot(e.epochs, [zeros(s, names=(name,)) for s in e.snapshots], color=color, linewidth=1.6, marker="o", markersize=3,
                   label=symbol(name))
        d.set_ylim(0, max(0.001, d.get_ylim()[1]))
        percent(d.yaxis)
        if d.get_ylim()[1] < 0.05:
            d.yaxis.get_major_formatter().decimals = 1
        label(d, "Synapses at zero", "epoch", "share")
        legend(d)
    else:
        d.set_visible(False)


def _draw_ridges(figure: FigureBase, e: Evolution, names: tuple[str, ...], title: str = "") -> None:
    layers = _some_layers(e)
    names = tuple(name for name in names if any((layer, name) in e.first.histograms for layer in layers))
    axes = figure.subplots(len(layers), len(names), squeeze=False)
    if title:
        figure.suptitle(title, x=0.005, ha="left", fontsize=FONT["title"] + 2, color=INK, weight="bold")
    for i, (row, layer) in enumerate(zip(axes, layers)):
        for j, (ax, name) in enumerate(zip(row, names)):
            _ridge(ax, e, layer, name, first=j == 0)
            label(ax, symbol(name) if i == 0 else "")
        row[0].set_ylabel(f"layer {e.layers.index(layer) + 1}\nepoch", fontsize=FONT["label"], color=INK)


def _ridge(ax: Axes, e: Evolution, layer: str, name: str, first: bool) -> None:
    clean(ax)
    ax.grid(False)
    ax.spines["left"].set_visible(False)
    ax.yaxis.set_major_locator(NullLocator())
    edges = _edges(e, [layer], name)
    if edges is None:
        ax.text(0.5, 0.5, "all zero" if (layer, name) in e.first.histograms else "none", transform=ax.transAxes, ha="center",
                color=GREY, fontsize=FONT["tick"])
        ax.xaxis.set_major_locator(NullLocator())
        return
    n = len(e.snapshots)
    height = 2.2
    for i, (color, s) in enumerate(zip(_epoch_shades(n), e.snapshots)):
        density = shares(s.histograms[layer, name], edges)
        top = density.max()
        y = np.repeat(density / top * height if top else density, 2)
        x = np.repeat(edges, 2)[1:-1]
        ax.fill_between(x, -i, y - i, color=color, linewidth=0, zorder=i)
        ax.plot(x, y - i, color="white", linewidth=0.7, zorder=i)
    ax.set_ylim(-n + 0.9, height + 0.1)
    value_axis(ax, edges, name)
    if name == "membrane":
        ax.axvline(1, color=INK, linewidth=0.8, linestyle=":", zorder=n + 1)
    if first:
        shown = sorted({0, *range(n - 1, 0, -max(1, round(n / 6)))})
        ax.set_yticks([-i for i in shown], [str(e.snapshots[i].epoch) for i in shown])


def _edges(e: Evolution, layers: list[str], name: str) -> np.ndarray | None:
    """Bins for nearly all entries of these layers in all epochs; None where all are 0. Equal steps of the logarithm where a
    quantity has no sign and more than a factor of four between its ends, else of the value."""
    found = [q for s in e.snapshots for layer in layers if (layer, name) in s.histograms
             for q in quantiles(s.histograms[layer, name], (0.005, 0.995), positive=name not in SIGNED) if q is not None]
    if not found or not any(found):
        return None
    low, high = min(found), max(found)
    if name == "rate":
        return np.linspace(0, high, RATE_BINS + 1)
    if name not in SIGNED and high > 4 * low:
        return np.logspace(np.log10(low) - 0.05, np.log10(high) + 0.05, BINS + 1)
    room = max(0.05 * (high - low), 0.06 * abs(high))
    return np.linspace(low - room, high + room, BINS + 1)


def value_axis(ax: Axes, edges: np.ndarray, name: str) -> None:
    ax.set_xlim(edges[0], edges[-1])
    steps = np.diff(edges)
    if steps[-1] > 1.01 * steps[0]:
        ax.set_xscale("log")
        decades = np.log10(edges[-1] / edges[0])
        ax.xaxis.set_major_locator(LogLocator(numticks=5) if decades > 1.2 else LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_minor_locator(NullLocator() if decades <= 1.2 else LogLocator(subs="auto", numticks=20))
        ax.xaxis.set_minor_formatter(NullFormatter())
        if decades <= 1.2:
            ax.xaxis.set_major_formatter("{x:g}")
    else:
        ax.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]))
        if name == "rate":
            percent(ax.xaxis)


def _draw_bimodality(figure: FigureBase, e: Evolution, title: str = "") -> None:
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


def symbol(name: str) -> str:
    """A quantity as the paper prints it."""
    head, _, foot = name.partition("_")
    words = {"membrane": "membrane", "rate": "firing rate"}
    return words.get(name) or (f"${head}_{{{foot}}}$" if foot else f"${name}$")


def _epoch_shades(n: int) -> list:
    return [colormaps["magma_r"](0.18 + 0.67 * i / max(1, n - 1)) for i in range(n)]


def _some_layers(e: Evolution) -> list[str]:
    n = len(e.layers)
    return [e.layers[i] for i in sorted({0, n // 2, n - 1})]


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
    figure = _figure(10, 4.8 if len(names) > 3 else 2.8)
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
        edges = _edges(e, e.layers, name)
        if edges is None:
            continue
        for color, layer in zip(colors, e.layers):
            density = shares(s.histograms[layer, name], edges)
            ax.stairs(density / (density.max() or 1), edges, color=color, linewidth=1.4)
        value_axis(ax, edges, name)
        ax.set_ylim(0, 1.08)
        if name == "membrane":
            ax.axvline(1, color=INK, linewidth=0.8, linestyle=":")
    ax = axes[len(names)]
    clean(ax)
    ax.bar(np.arange(1, len(colors) + 1), [row["mean"] for row in s.activity], color=colors, width=0.7)
    ax.set_ylim(0, 1.05 * max(row["mean"] for each in e.snapshots for row in each.activity) or 1)
    percent(ax.yaxis)
    label(ax, "firing rate")
    layer_axis(ax, len(colors))
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=80, facecolor="white")
    return out.getvalue()
