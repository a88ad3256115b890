"""Histograms on one grid for everything, so that those of any layer, quantity and epoch can be added and compared.

Magnitudes fall into equal parts of a decade, from 1e-8 to 1e6 (smaller and larger ones into the outermost), each sign on its
own side; exact zeros and values that are not finite have bins of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .probes import Activity

LOW, HIGH, PER_DECADE = -8, 6, 100
SIDE = (HIGH - LOW) * PER_DECADE  # bins of one sign
ZERO, NOT_FINITE = SIDE, 2 * SIDE + 1  # their places
BINS = 2 * SIDE + 2
POSITIVE = 10 ** np.linspace(LOW, HIGH, SIDE + 1)
EDGES = np.concatenate([-POSITIVE[::-1], POSITIVE])  # of all finite bins, ``[BINS]``
CURRENTS = ("I_EE", "I_sub", "I_div", "D", "I", "membrane")


def count(x: Tensor) -> Tensor:
    """Entries of x by bin, ``[BINS]`` int64: negative from -1e6 to -1e-8, zero, positive from 1e-8 to 1e6, not finite."""
    x = x.detach().flatten()
    x = x.float() if x.element_size() < 4 else x
    finite = x.isfinite()
    place = ((x.abs().log10() - LOW) * PER_DECADE).nan_to_num(0, SIDE, 0).clamp(0, SIDE - 1).long()
    place = torch.where(x > 0, ZERO + 1 + place, ZERO - 1 - place)
    place = place.masked_fill(x == 0, ZERO).masked_fill(~finite, NOT_FINITE)
    return torch.bincount(place, minlength=BINS).cpu()


def shares(counts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The share of the finite entries between neighbouring edges, ``[len(edges) - 1]``; within a bin they lie evenly."""
    below = np.concatenate([[0], counts[:NOT_FINITE].cumsum()])
    return np.diff(np.interp(edges, EDGES, below / max(1, below[-1])))


def quantiles(counts: np.ndarray, levels: Sequence[float], positive: bool = False) -> list[float | None]:
    """Values below which these shares of the finite (or the positive) entries lie; None where there are none."""
    finite = counts[:NOT_FINITE].copy()
    if positive:
        finite[: ZERO + 1] = 0
    below = finite.cumsum()
    if not below[-1]:
        return [None] * len(levels)
    found: list[float | None] = []
    for level in levels:
        place = int(np.searchsorted(below, max(level * below[-1], 1e-9)))
        part = 1 - (below[place] - level * below[-1]) / finite[place]
        found.append(0.0 if place == ZERO else float(EDGES[place] + part * (EDGES[place + 1] - EDGES[place])))
    return found


class CurrentHistograms:
    """Collects a histogram of each current of each layer, for :func:`~eisnn_zoo.analysis.probes.stream`.

    Attributes:
        counts: after the stream, ``[BINS]`` by (layer, quantity); a layer without inhibition has I and membrane alone.
    """

    def __init__(self, quantities: Sequence[str] = CURRENTS) -> None:
        self.quantities = quantities
        self.counts: dict[tuple[str, str], Tensor] = {}

    def see(self, activity: Activity) -> None:
        for quantity in self.quantities:
            if activity.literal is None and quantity not in ("I", "membrane"):
                continue
            value = activity[quantity]
            if quantity != "membrane":
                value = value[: activity.steps_in]  # what is held over time counts once
            place = activity.name, quantity
            self.counts[place] = self.counts.get(place, 0) + count(value)
