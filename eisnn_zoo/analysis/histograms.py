"""Histograms on one grid for everything, so that those of any layer, quantity and epoch can be added and compared.

Magnitudes fall into equal parts of a decade, from 1e-8 to 1e6 (smaller and larger ones into the outermost), each sign on its
own side; exact zeros and values that are not finite have bins of their own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .probes import Activity

LOW, HIGH, PER_DECADE = -8, 6, 40
SIDE = (HIGH - LOW) * PER_DECADE  # bins of one sign
ZERO, NOT_FINITE = SIDE, 2 * SIDE + 1  # their places
BINS = 2 * SIDE + 2
EDGES = torch.logspace(LOW, HIGH, SIDE + 1, dtype=torch.float64).numpy()  # of the positive side, ``[SIDE + 1]``
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


class CurrentHistograms:
    """Collects a histogram of each current of each layer, for :func:`~eisnn_zoo.analysis.probes.stream`.

    Attributes:
        counts: after the stream, ``[BINS]`` by (layer, quantity); a layer without inhibition has I and membrane alone.
    """

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], Tensor] = {}

    def see(self, activity: Activity) -> None:
        for quantity in CURRENTS if activity.literal is not None else ("I", "membrane"):
            value = activity[quantity]
            if quantity != "membrane":
                value = value[: activity.steps_in]  # what is held over time counts once
            place = activity.name, quantity
            self.counts[place] = self.counts.get(place, 0) + count(value)
