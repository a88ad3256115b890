"""What all pictures share. Excitation is vermilion and inhibition blue (Okabe and Ito's palette, safe for the colour-blind);
layers go from light to dark with depth. Layers are numbered in the order in which they run."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

EXCITATION, INHIBITION, GREEN, GREY, INK = "#d55e00", "#0072b2", "#009e73", "#8a8f98", "#24292f"
FONT = {"title": 11, "label": 9.5, "tick": 8.5}
NAMED = 8  # layers that a legend has room for
LONGEST = 24  # letters of a class's name


def blank(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def new(rows: int = 1, columns: int = 1, width: float = 9.0, height: float = 3.2) -> tuple[Figure, np.ndarray]:
    """A figure and its axes ``[rows, columns]``, clean: no box, light grid, small ticks."""
    figure = blank(width, height * rows)
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


def layer_legend(ax: Axes, **options) -> None:
    """Of what was drawn for each layer in turn; of a deep network the first, the middle and the last."""
    handles, labels = ax.get_legend_handles_labels()
    if len(labels) > NAMED:
        handles, labels = three(handles), three(labels)
    legend(ax, handles=handles, labels=labels, **options)


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # letters that matplotlib's own typeface has not are drawn as boxes
        figure.savefig(out, format="png", dpi=dpi, facecolor="white")
    return out.getvalue()


def three(items: Sequence) -> list:
    """The first, the middle and the last; fewer where there are not so many."""
    n = len(items)
    return [items[i] for i in sorted({0, n // 2, n - 1})]


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
    """Shares as percentages, with as many digits as the ticks need."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.6g}%"))


def column(rows: Sequence[dict], key: str) -> list[float]:
    return [float("nan") if row[key] is None else row[key] for row in rows]


def plain(text: str) -> str:
    """Somebody's own words, in which a dollar begins no formula."""
    return text.replace("$", r"\$")


def short(text: str) -> str:
    """The same, of a class: not too long to stand beside a picture."""
    return plain(text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…")


def symbol(name: str) -> str:
    """A quantity as the paper prints it, W_EE with its index low."""
    head, _, foot = name.partition("_")
    return f"${head}_{{{foot}}}$" if foot else f"${name}$" if len(name) == 1 else name
