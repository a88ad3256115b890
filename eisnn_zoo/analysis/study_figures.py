"""The pictures of the studies, one function for each."""

from __future__ import annotations

from math import ceil

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from ..figures import (
    EXCITATION,
    FONT,
    GREEN,
    GREY,
    INHIBITION,
    INK,
    blank,
    clean,
    column,
    label,
    layer_axis,
    layer_legend,
    legend,
    new,
    percent,
    shades,
    symbol,
    three,
)
from .energy import PICOJOULES
from .parameters import UNIFORM
from .ridges import bins, name_ridges, ridges

MOST = 16  # layers among which ridges can be told apart


def rates(rows: list[dict], neuron_rates: dict) -> Figure:
    figure, ((a, b, c),) = new(1, 3, 10.5, 3.3)
    n = len(rows)
    at = np.arange(1, n + 1)
    a.bar(at, column(rows, "mean"), color=EXCITATION, width=0.7)
    layer_axis(a, n)
    percent(a.yaxis)
    label(a, "How often neurons fire", "layer", "spikes per neuron and step")
    silent, saturated = np.array(column(rows, "silent")), np.array(column(rows, "saturated"))
    b.bar(at, 1 - silent - saturated, bottom=silent, color="#f0c9a8", width=0.7, label="active")
    b.bar(at, silent, color=GREY, width=0.7, label="silent")
    b.bar(at, saturated, bottom=1 - saturated, color=INK, width=0.7, label="saturated")
    layer_axis(b, n)
    percent(b.yaxis)
    b.set_ylim(0, 1)
    label(b, "Neurons silent and saturated", "layer", "share of neurons")
    legend(b, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, columnspacing=1.0, handlelength=1.2)
    for i, (color, r) in enumerate(zip(shades(n), neuron_rates.values()), 1):
        ordered = np.sort(r.flatten().numpy())[::-1]
        c.plot(np.linspace(0, 1, len(ordered)), ordered, color=color, linewidth=1.6, label=f"layer {i}")
    percent(c.xaxis)
    percent(c.yaxis)
    c.set_xlim(0, 1)
    label(c, "Every neuron, busiest first", "share of the layer's neurons", "its firing rate")
    layer_legend(c)
    return figure


def balance(rows: list[dict], samples: dict) -> Figure:
    """samples: {layer: (I_EE, I_sub) arrays} of some entries."""
    names = list(samples)
    shown = three(names)
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


def gain(measured: dict[tuple[str, str], list[dict]], layers: list[str]) -> Figure:
    """measured: rows of gain_rows by what was changed, as a title and as the words along the axis."""
    divides = any(r["before_division"] is not None for rows in measured.values() for r in rows)
    sides = {"before_division": ": before division", "after_division": ": after division"} if divides else {"after_division": ""}
    figure, axes = new(1, len(sides) * len(measured), 12 if divides else 8, 3.2)
    for i, ((what, axis), rows) in enumerate(measured.items()):
        for j, (key, when) in enumerate(sides.items(), len(sides) * i):
            ax = axes[0, j]
            for color, (n, layer) in zip(shades(len(layers)), enumerate(layers, 1)):
                own = [r for r in rows if r["layer"] == layer]
                ax.plot(column(own, "contrast"), column(own, key), color=color, marker="o", markersize=3, linewidth=1.5,
                        label=f"layer {n}")
            ax.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
            ax.set_xlim(0, 1.03)
            ax.set_ylim(0, max(1.2, ax.get_ylim()[1]))
            label(ax, what + when, axis, "" if j else "modulation, 1 at full")
    layer_legend(axes[0, -1], loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def divisors(histograms: dict[str, np.ndarray], rows: list[dict]) -> Figure:
    """histograms: of D, by layer."""
    n = len(rows)
    figure, ((a, b),) = new(1, 2, 9.5, 3.4)
    shown = _some(n)
    counts = list(histograms.values())
    ridges(a, [counts[i] for i in shown], bins(counts, signed=False), [shades(n)[i] for i in shown])
    name_ridges(a, [i + 1 for i in shown])
    label(a, "The divisor D", "D", "layer")
    at = np.arange(1, n + 1)
    b.bar(at - 0.19, column(rows, "zero_entries"), width=0.38, color=INHIBITION, label="entries of $I_{div}$ at 0")
    b.bar(at + 0.19, column(rows, "silent_slices"), width=0.38, color=GREY, label="slices all 0 (then I = $b_E$)")
    percent(b.yaxis)
    layer_axis(b, n)
    label(b, "Where stabilization must act", "layer", "share")
    if any(column(rows, "zero_entries")):
        legend(b)
    else:
        b.set_ylim(0, 0.01)
        b.text(0.5, 0.5, "nowhere", transform=b.transAxes, ha="center", color=GREY)
    return figure


def parameters(histograms: dict[str, list[np.ndarray]], rows: list[dict]) -> Figure:
    """histograms: by the paper's name, of each layer in turn, the output layer last; without entries where it has no such parameter."""
    figure = blank(12, 6.6)
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    shown = _some(len(layers))
    for i, (ax, (name, counts)) in enumerate(zip(top.subplots(1, len(histograms)), histograms.items())):
        ridges(ax, [counts[i] for i in shown], bins(counts, signed=name == "b_E"), [shades(len(layers))[i] for i in shown])
        if i == 0:
            name_ridges(ax, ["out" if i + 1 == len(layers) else i + 1 for i in shown])
        label(ax, symbol(name), "value" if name == "b_E" else "value / mean of the layer", "layer" if i == 0 else "")
    a, b = bottom.subplots(1, 2)
    styles = dict(zip(histograms, ((EXCITATION, "o"), (INHIBITION, "s"), (GREEN, "^"), ("#56b4e9", "D"), ("#e69f00", "v"),
                                   ("#cc79a7", "P"))))
    for name, (color, marker) in styles.items():
        own = [row for row in rows if row["parameter"] == name]
        at = [layers.index(row["layer"]) + 1 for row in own]
        line = {"color": color, "marker": marker, "markersize": 5, "linewidth": 1.4, "label": symbol(name)}
        if name[0] == "W":
            a.plot(at, column(own, "zeros"), **line)
        b.plot(at, column(own, "bimodality"), **line)
    b.axhline(UNIFORM, color=GREY, linestyle=":", linewidth=1)
    b.set_ylim(0, 1)
    for ax in (a, b):
        clean(ax)
        layer_axis(ax, len(layers))
        if len(layers) <= 12:
            ax.set_xticks(range(1, len(layers) + 1), [*range(1, len(layers)), "out"])
        legend(ax, loc="center left", bbox_to_anchor=(1, 0.5))
    a.set_ylim(0, None)
    percent(a.yaxis)
    label(a, "Synapses at zero", "layer", "share of the layer's")
    label(b, "Bimodality", "layer", "coefficient")
    return figure


def _some(n: int) -> list[int]:
    """All of n layers, or as many evenly among them as can be told apart."""
    return sorted({round(i) for i in np.linspace(0, n - 1, min(n, MOST)).tolist()})


def trains(rows: list[dict], intervals: dict, by_chance: dict, over_time: dict) -> Figure:
    """Counts of intervals, measured and by chance, and the rate at every step, by layer."""
    n = len(intervals)
    figure, ((a, b, c),) = new(1, 3, 12, 3.4)
    for i, (color, own, chance) in enumerate(zip(shades(n), intervals.values(), by_chance.values()), 1):
        at = np.arange(1, len(own))
        for counts, style in ((own, {"marker": "o", "markersize": 3.5, "linewidth": 1.5, "label": f"layer {i}"}),
                              (chance, {"linestyle": ":", "linewidth": 1.2})):
            share = counts.numpy()[1:] / (counts.sum().item() or np.nan)
            a.plot(at, np.where(share > 0, share, np.nan), color=color, **style)
    a.set_yscale("log")
    a.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # the scale's own labels between the decades are no percentages
    a.yaxis.set_minor_locator(NullLocator())
    a.xaxis.set_major_locator(MaxNLocator(integer=True))
    percent(a.yaxis)
    label(a, "Intervals (dotted: shuffled)", "steps from one spike to the next", "share of intervals")
    layer_legend(a)
    for color, own in zip(shades(n), over_time.values()):
        b.plot(np.arange(1, len(own) + 1), own.numpy(), color=color, marker="o", markersize=3.5, linewidth=1.5)
    b.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    b.set_ylim(0, None)
    percent(b.yaxis)
    label(b, "Firing over time", "time step", "share of neurons that fire")
    at = np.arange(1, n + 1)
    c.plot(at, column(rows, "fano"), color=EXCITATION, marker="o", linewidth=1.4, label="Fano factor")
    c.plot(at, column(rows, "cv_interval"), color=INHIBITION, marker="s", linewidth=1.4, label="CV of intervals")
    c.axhline(1, color=GREY, linestyle=":", linewidth=1)
    c.text(n + 0.55, 1.02, "Poisson", color=GREY, fontsize=FONT["tick"], ha="right", va="bottom")
    c.set_ylim(0, None)
    layer_axis(c, n)
    label(c, "Variability", "layer", "")
    legend(c)
    return figure


def similarity(matrices: dict[str, np.ndarray]) -> Figure:
    """matrices: {"rows name \u2022 columns name": CKA}, not a number where a layer has none."""
    figure, axes = new(1, len(matrices), 4.6 * len(matrices) + 0.6, 4.0)
    for ax, (name, m) in zip(axes[0], matrices.items()):
        ax.grid(False)
        image = ax.imshow(m, vmin=0, vmax=1, cmap="cividis", origin="lower",
                          extent=(0.5, m.shape[1] + 0.5, 0.5, m.shape[0] + 0.5))
        if max(m.shape) <= 9:
            for i, j in zip(*np.isfinite(m).nonzero()):
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
    rows = ceil((len(panels) + 1) / 4)
    figure, axes = new(rows, 4, 12.5, 3.0)
    reference = ({"color": GREY, "linewidth": 0.9}, {"color": GREY, "linewidth": 1, "linestyle": ":"})
    for i, (ax, (title, (x, lines))) in enumerate(zip(axes.flat, panels.items())):
        for color, marker, (name, points) in zip((EXCITATION, INHIBITION, GREEN), "os^", lines.items()):
            words = " ".join(symbol(word) if "_" in word else word for word in name.split(" "))
            ax.plot(*zip(*sorted(points)), color=color, marker=marker, markersize=4, linewidth=1.5, label=words)
        for level, style in zip((intact, chance), reference):
            ax.axhline(level, **style)
        ax.set_ylim(0, 103)
        label(ax, title, x, "top-1 accuracy, %" if i % 4 == 0 else "")
        if len(lines) > 1:
            legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.24), handlelength=1.5)
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    key = [Line2D([], [], **style) for style in reference]
    legend(axes.flat[len(panels)], handles=key, labels=["intact network", "chance"], loc="center left")
    return figure


def energy(rows: list[dict], whole: list[dict], layers: list[str], titles: dict[str, str], thing: str) -> Figure:
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
    label(a, f"One {thing}", "energy, µJ", "")
    legend(a, loc="upper center", bbox_to_anchor=(0.45, -0.16), ncols=4, columnspacing=1.0, handlelength=1.2)
    width = 0.8 / len(present)
    for i, (variant, color) in enumerate(zip(present, (EXCITATION, INHIBITION, GREEN, GREY))):
        own = {r["layer"]: r["microjoules"] for r in rows if r["variant"] == variant}
        b.bar(np.arange(1, len(layers) + 1) + (i - (len(present) - 1) / 2) * width, [own.get(l, 0.0) for l in layers],
              width=width, color=color, label=titles[variant])
    layer_axis(b, len(layers))
    label(b, "By layer (the last is the output layer)", "layer", "energy, µJ")
    legend(b, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, columnspacing=1.0, handlelength=1.2)
    return figure
