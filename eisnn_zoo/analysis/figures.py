"""Pictures of the measures. Excitation is vermilion and inhibition blue (Okabe and Ito's palette, safe for the colour-blind);
layers go from light to dark with depth. Layers are numbered in the order in which they run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from math import ceil

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from .energy import PICOJOULES

EXCITATION, INHIBITION, GREEN, GREY, INK = "#d55e00", "#0072b2", "#009e73", "#8a8f98", "#24292f"
FONT = {"title": 11, "label": 9.5, "tick": 8.5}


def new(rows: int = 1, columns: int = 1, width: float = 9.0, height: float = 3.2) -> tuple[Figure, np.ndarray]:
    """A figure and its axes ``[rows, columns]``, clean: no box, light grid, small ticks."""
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        clean(ax)
    return figure, axes


def clean(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.tick_params(colors=INK, labelsize=FONT["tick"], length=3, color=GREY)
    ax.grid(axis="y", color="#e6e8eb", linewidth=0.8)
    ax.set_axisbelow(True)


def label(ax: Axes, title: str = "", x: str = "", y: str = "") -> None:
    ax.set_title(title, fontsize=FONT["title"], color=INK, loc="left")
    ax.set_xlabel(x, fontsize=FONT["label"], color=INK)
    ax.set_ylabel(y, fontsize=FONT["label"], color=INK)


def legend(ax: Axes, **options) -> None:
    ax.legend(frameon=False, fontsize=FONT["tick"], **options)


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=dpi, facecolor="white")
    return out.getvalue()


def shades(n: int) -> list:
    """A colour for each of n layers, light to dark."""
    return [colormaps["viridis_r"](0.12 + 0.82 * i / max(1, n - 1)) for i in range(n)]


def layer_axis(ax: Axes, n: int) -> None:
    ax.set_xlim(0.4, n + 0.6)
    if n <= 12:
        ax.set_xticks(range(1, n + 1))
    else:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    ax.set_xlabel("layer", fontsize=FONT["label"])


def percent(axis) -> None:
    axis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def column(rows: Sequence[dict], key: str) -> list[float]:
    return [float("nan") if row[key] is None else row[key] for row in rows]


# ---- one for each study ----------------------------------------------------------------------------------------------


def rates(rows: list[dict], neuron_rates: dict, over_time: dict) -> Figure:
    figure, ((a, b, c),) = new(1, 3, 10.5, 3.3)
    n = len(rows)
    at = np.arange(1, n + 1)
    a.bar(at, column(rows, "mean"), color=EXCITATION, width=0.7)
    layer_axis(a, n)
    percent(a.yaxis)
    label(a, "How often neurons fire", "layer", "spikes per neuron and step")
    silent, saturated = np.array(column(rows, "silent")), np.array(column(rows, "saturated"))
    b.bar(at, 1 - silent - saturated, bottom=silent, color="#f0c9a8", width=0.7, label="active")
    b.bar(at, silent, color=GREY, width=0.7, label="silent: never fired")
    b.bar(at, saturated, bottom=1 - saturated, color=INK, width=0.7, label="saturated: at 95 % of steps or more")
    layer_axis(b, n)
    percent(b.yaxis)
    b.set_ylim(0, 1)
    label(b, "Neurons silent and saturated", "layer", "share of neurons")
    legend(b, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, columnspacing=1.0, handlelength=1.2)
    for i, (color, r) in enumerate(zip(shades(n), neuron_rates.values()), 1):
        ordered = np.sort(r.flatten().numpy())[::-1]
        c.plot(np.linspace(0, 1, len(ordered)), ordered, color=color, linewidth=1.6, label=f"layer {i}")
    percent(c.xaxis)
    percent(c.yaxis)
    c.set_xlim(0, 1)
    label(c, "Every neuron, busiest first", "share of the layer's neurons", "its firing rate")
    if n <= 8:
        legend(c)
    return figure


def balance(rows: list[dict], samples: dict) -> Figure:
    """samples: {layer: (I_EE, I_sub) arrays} of some entries."""
    names = list(samples)
    shown = [names[i] for i in sorted({0, len(names) // 2, len(names) - 1})]
    figure, axes = new(1, len(shown) + 1, 3.4 * (len(shown) + 1), 3.3)
    for ax, name in zip(axes[0], shown):
        e, s = samples[name]
        top = float(np.quantile(np.concatenate([e, s]), 0.998)) or 1.0
        ax.hexbin(e, s, gridsize=38, extent=(0, top, 0, top), bins="log", cmap="Blues", mincnt=1, linewidths=0)
        ax.plot([0, top], [0, top], color=EXCITATION, linewidth=1.2)
        ax.set_xlim(0, top)
        ax.set_ylim(0, top)
        ax.set_aspect("equal")
        label(ax, f"Layer {names.index(name) + 1}", "excitation $I_{EE}$", "inhibition $I_{sub}$")
    ax, at = axes[0, -1], np.arange(1, len(rows) + 1)
    for key, color, marker in (("ratio", INHIBITION, "o"), ("correlation", GREEN, "s"), ("residual", EXCITATION, "^")):
        ax.plot(at, column(rows, key), color=color, marker=marker, markersize=5, linewidth=1.4, label=key)
    ax.axhline(1, color=GREY, linewidth=0.8, linestyle=":")
    layer_axis(ax, len(rows))
    ax.set_ylim(0, None)
    label(ax, "Balance by layer", "layer", "")
    legend(ax)
    return figure


def gain(measured: dict[str, list[dict]], layers: list[str]) -> Figure:
    """measured: {what was changed: rows of gain_rows}."""
    figure, axes = new(1, 2 * len(measured), 11, 3.2)
    for i, (what, rows) in enumerate(measured.items()):
        for ax, key, when in zip(axes[0, 2 * i :], ("before_division", "after_division"), ("before", "after")):
            for color, (j, layer) in zip(shades(len(layers)), enumerate(layers, 1)):
                own = [r for r in rows if r["layer"] == layer]
                ax.plot(column(own, "contrast"), column(own, key), color=color, marker="o", markersize=3, linewidth=1.5,
                        label=f"layer {j}")
            ax.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
            ax.set_xlim(0, 1.03)
            ax.set_ylim(0, max(1.2, ax.get_ylim()[1]))
            label(ax, f"{what}, {when} division", what.lower(), "modulation, 1 at full")
    if len(layers) <= 8:
        legend(axes[0, 0])
    return figure


def divisors(histograms: dict, rows: list[dict]) -> Figure:
    """histograms: {layer: (edges of log10 D, shares)}."""
    figure, ((a, b),) = new(1, 2, 9, 3.2)
    for i, (color, (edges, shares)) in enumerate(zip(shades(len(histograms)), histograms.values()), 1):
        a.stairs(shares, edges, color=color, linewidth=1.5, label=f"layer {i}")
    label(a, "The divisor D", "log$_{10}$ D", "share of entries")
    if len(histograms) <= 8:
        legend(a)
    at = np.arange(1, len(rows) + 1)
    b.bar(at - 0.19, column(rows, "zero_entries"), width=0.38, color=INHIBITION, label="entries of $I_{div}$ at 0")
    b.bar(at + 0.19, column(rows, "silent_slices"), width=0.38, color=GREY, label="slices all 0 (then I = $b_E$)")
    b.yaxis.set_major_formatter(PercentFormatter(1.0))
    layer_axis(b, len(rows))
    if not any(column(rows, "zero_entries")):
        b.set_ylim(0, 0.01)
    label(b, "Where stabilization must act", "layer", "share")
    legend(b)
    return figure


def parameters(histograms: dict[str, list[tuple[np.ndarray, np.ndarray]]], rows: list[dict]) -> Figure:
    """histograms: {paper's name: [(edges, shares) for each layer]}."""
    names = list(histograms)
    figure, axes = new(ceil(len(names) / 3), 3, 10, 2.7)
    for ax, name in zip(axes.flat, names):
        for color, (edges, shares) in zip(shades(len(histograms[name])), histograms[name]):
            ax.stairs(np.maximum(shares, 1e-7), edges, color=color, linewidth=1.2)
        ax.set_yscale("log")
        smallest = min(s[s > 0].min() for _, s in histograms[name])
        ax.set_ylim(smallest * 0.7, 1.3)
        math = "$" + name[0] + "_{" + name[2:] + "}$"
        label(ax, math, "value" if name == "b_E" else "value / mean of the layer", "share of entries")
        right = [np.interp(1 - 2e-4, np.cumsum(s), e[1:]) for e, s in histograms[name]]  # the last few would squeeze the rest
        ax.set_xlim(min(e[0] for e, _ in histograms[name]), max(right) * 1.05 if max(right) > 0 else None)
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    return figure


def trains(rows: list[dict], intervals: dict) -> Figure:
    figure, ((a, b),) = new(1, 2, 9, 3.1)
    n = len(intervals)
    width = 0.8 / n
    for i, (color, counts) in enumerate(zip(shades(n), intervals.values())):
        share = counts.numpy() / max(1.0, counts.sum().item())
        a.bar(np.arange(1, len(share)) + (i - (n - 1) / 2) * width, share[1:], width=width, color=color, label=f"layer {i + 1}")
    a.xaxis.set_major_locator(MaxNLocator(integer=True))
    percent(a.yaxis)
    label(a, "Intervals between spikes", "steps from one spike to the next", "share of intervals")
    if n <= 8:
        legend(a)
    at = np.arange(1, n + 1)
    b.plot(at, column(rows, "fano"), color=EXCITATION, marker="o", linewidth=1.4, label="Fano factor")
    b.plot(at, column(rows, "cv_interval"), color=INHIBITION, marker="s", linewidth=1.4, label="CV of intervals")
    b.axhline(1, color=GREY, linestyle=":", linewidth=1)
    b.text(n + 0.55, 1.02, "Poisson", color=GREY, fontsize=FONT["tick"], ha="right", va="bottom")
    b.set_ylim(0, None)
    layer_axis(b, n)
    label(b, "Variability", "layer", "")
    legend(b)
    return figure


def similarity(matrices: dict[str, np.ndarray]) -> Figure:
    """matrices: {"rows name \u2022 columns name": CKA}."""
    figure, axes = new(1, len(matrices), 4.6 * len(matrices) + 0.6, 4.0)
    for ax, (name, m) in zip(axes[0], matrices.items()):
        ax.grid(False)
        image = ax.imshow(m, vmin=0, vmax=1, cmap="cividis", origin="lower",
                          extent=(0.5, m.shape[1] + 0.5, 0.5, m.shape[0] + 0.5))
        if max(m.shape) <= 9:
            for i, j in np.ndindex(m.shape):
                ax.text(j + 1, i + 1, f"{m[i, j]:.2f}", ha="center", va="center", fontsize=FONT["tick"],
                        color="black" if m[i, j] > 0.55 else "white")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        below, _, beside = name.partition(" • ")
        label(ax, "", f"layer of {beside or below}", f"layer of {below}")
    figure.colorbar(image, ax=list(axes[0]), shrink=0.85, label="CKA")
    return figure


def interventions(panels: dict[str, tuple[str, dict[str, list[tuple[float, float]]]]], intact: float, chance: float) -> Figure:
    """panels: {title: (x label, {line: [(level, top-1 accuracy in %)]})}."""
    figure, axes = new(ceil(len(panels) / 3), 3, 10.5, 2.8)
    for ax, (title, (x, lines)) in zip(axes.flat, panels.items()):
        for color, marker, (name, points) in zip((EXCITATION, INHIBITION, GREEN), "os^", lines.items()):
            ax.plot(*zip(*sorted(points)), color=color, marker=marker, markersize=4, linewidth=1.5, label=name)
        ax.axhline(chance, color=GREY, linestyle=":", linewidth=1)
        ax.axhline(intact, color=GREY, linewidth=0.8)
        ax.set_ylim(0, 100)
        label(ax, title, x, "top-1 accuracy, %")
        if len(lines) > 1:
            legend(ax)
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    return figure


def energy(rows: list[dict], whole: list[dict], layers: list[str], titles: dict[str, str]) -> Figure:
    figure, ((a, b),) = new(1, 2, 10, 3.4)
    present = [r["variant"] for r in whole]
    kinds = {"ACs": ("acs", "#f0c9a8"), "MACs": ("macs", EXCITATION), "divisions": ("divisions", INHIBITION)}
    left = np.zeros(len(whole))
    at = np.arange(len(whole))[::-1]
    for name, (key, color) in kinds.items():
        part = np.array(column(whole, key)) * PICOJOULES[key] * 1e-6
        a.barh(at, part, left=left, color=color, height=0.65, label=name)
        left += part
    rest = np.array(column(whole, "microjoules")) - left
    a.barh(at, rest, left=left, color=GREY, height=0.65, label="other")
    for y, total in zip(at, column(whole, "microjoules")):
        a.text(total, y, f" {total:.3g}", va="center", fontsize=FONT["tick"], color=INK)
    a.set_yticks(at, [titles[v] for v in present])
    a.grid(False, axis="y")
    a.set_xlim(0, max(column(whole, "microjoules")) * 1.14)
    label(a, "One image", "energy, µJ", "")
    legend(a, loc="upper center", bbox_to_anchor=(0.45, -0.16), ncols=4, columnspacing=1.0, handlelength=1.2)
    width = 0.8 / len(present)
    for i, (variant, color) in enumerate(zip(present, (EXCITATION, INHIBITION, GREEN, GREY))):
        own = {r["layer"]: r["microjoules"] for r in rows if r["variant"] == variant}
        b.bar(np.arange(1, len(layers) + 1) + (i - (len(present) - 1) / 2) * width, [own.get(l, 0.0) for l in layers],
              width=width, color=color, label=titles[variant])
    layer_axis(b, len(layers))
    label(b, "By layer (the last is the output layer)", "layer", "energy of an image, µJ")
    legend(b, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, columnspacing=1.0, handlelength=1.2)
    return figure
