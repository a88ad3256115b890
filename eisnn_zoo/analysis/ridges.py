"""Ridges: histograms of the common grid, one below the other, all with their peak at the same height."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

from ..figures import FONT, GREY, clean
from .histograms import quantiles, shares

BINS = 60
CUT = 0.4  # a bin with this share of all entries is cut off at the top, lest the others vanish beside it
HEIGHT = 2.2  # of a peak, in distances between ridges


def bins(counts: Iterable[np.ndarray], signed: bool) -> np.ndarray | None:
    """Edges of bins for nearly all entries; None where all are 0.

    Args:
        counts: histograms of :mod:`~eisnn_zoo.analysis.histograms`.
        signed: False leaves exact zeros out, and makes equal steps of the logarithm where the ends differ by a factor of 10.
    """
    found = [q for c in counts for q in quantiles(c, (0.005, 0.995), positive=not signed) if q is not None]
    if not any(found):
        return None
    low, high = min(found), max(found)
    if not signed and high > 10 * low:
        return np.logspace(np.log10(low) - 0.05, np.log10(high) + 0.05, BINS + 1)
    room = max(0.05 * (high - low), 0.06 * abs(high))
    return np.linspace(low - room, high + room, BINS + 1)


def value_axis(ax: Axes, edges: np.ndarray) -> None:
    """The horizontal axis over these bins, logarithmic where they are."""
    ax.set_xlim(edges[0], edges[-1])
    if np.isclose(edges[1] - edges[0], edges[-1] - edges[-2], rtol=0.01):
        ax.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]))
        return
    ax.set_xscale("log")
    wide = edges[-1] > 16 * edges[0]
    ax.xaxis.set_major_locator(LogLocator(numticks=5) if wide else LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_minor_locator(LogLocator(subs="auto", numticks=20) if wide else NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    if not wide:
        ax.xaxis.set_major_formatter("{x:g}")


def ridges(ax: Axes, counts: Sequence[np.ndarray], edges: np.ndarray | None, colors: Sequence) -> None:
    """Draws histograms from top to bottom, over these bins; ``name_ridges`` may follow. None: there is nothing to draw."""
    clean(ax)
    ax.grid(False)
    ax.spines["left"].set_visible(False)
    ax.yaxis.set_major_locator(NullLocator())
    n = len(counts)
    ax.set_ylim(-n + 0.9, HEIGHT + 0.1)
    if edges is None:
        ax.text(0.5, 0.5, "all zero" if n else "none", transform=ax.transAxes, ha="center", color=GREY, fontsize=FONT["tick"])
        ax.xaxis.set_major_locator(NullLocator())
        return
    for i, (color, own) in enumerate(zip(colors, counts)):
        density = shares(own, edges)
        usual = density[density < CUT]
        top = usual.max() if usual.any() else 1.0
        y, x = np.repeat(np.minimum(density / top, 1) * HEIGHT, 2), np.repeat(edges, 2)[1:-1]
        ax.fill_between(x, -i, y - i, color=color, linewidth=0, zorder=i)
        ax.plot(x, y - i, color="white", linewidth=0.7, zorder=i)
    value_axis(ax, edges)


def name_ridges(ax: Axes, names: Sequence[object]) -> None:
    """Names at the left of the ridges, of every second or third where there are many; the last always."""
    n = len(names)
    shown = sorted({0, *range(n - 1, 0, -max(1, round(n / 6)))})
    ax.set_yticks([-i for i in shown], [str(names[i]) for i in shown])
