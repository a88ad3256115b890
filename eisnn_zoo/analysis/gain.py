"""Gain control: how much of a change in the strength of the input arrives in the currents.

Divisive inhibition should flatten the response: with no bias, an E-I layer whose input is multiplied by c > 0 answers with
the same current, as numerator and divisor both grow by c.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor, nn

from .measures import Moments
from .probes import Activity, stream

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def at_contrast(x: Tensor, level: float, about: str = "black") -> Tensor:
    """The images x at a share of their contrast, ``[B, ...]``.

    Args:
        about: "black" multiplies the pixels (light dimmed); "mean" draws them towards each image's mean (light kept).
    """
    if about == "black":
        return x * level
    if about != "mean":
        raise ValueError(f"contrast is about 'black' or 'mean', not {about!r}")
    mean = x.flatten(1).mean(1).view(-1, *[1] * (x.dim() - 1))
    return mean + (x - mean) * level


class Modulation:
    """Collects each layer's modulation before the division, of I_EE - I_sub, and after it, of I.

    Modulation is the root mean square of a current's deviation from its channel's mean over images, positions and steps of
    a batch: what the images do to the current. The bias b_E, the same for all of them, is no part of it.
    """

    def __init__(self):
        self._before: dict[str, Moments] = {}
        self._after: dict[str, Moments] = {}

    def see(self, activity: Activity) -> None:
        if activity.literal is not None:
            _add_modulation(self._before, activity.name, activity["I_EE"] - activity["I_sub"])
        _add_modulation(self._after, activity.name, activity["I"])

    def rms(self) -> dict[str, tuple[float | None, float]]:
        def of(moments: Moments) -> float:
            return math.sqrt(moments.covariance.item() + moments.mean.item() ** 2)

        return {name: (of(self._before[name]) if name in self._before else None, of(m)) for name, m in self._after.items()}


def _add_modulation(moments: dict[str, Moments], name: str, current: Tensor) -> None:
    mean = current.mean((0, 1, *range(3, current.dim())), keepdim=True)
    moments.setdefault(name, Moments(1)).add(current - mean)


def gain_rows(model: nn.Module, batches: Iterable[Tensor], levels: Iterable[float] = LEVELS, about: str = "black",
              literal: nn.Module | None = None) -> list[dict]:
    """One row for each level and layer: modulation before and after the division, in parts of that at level 1.

    A network without E-I layers has nothing before the division (None): its current is what counts as after.

    Args:
        batches: is run through once for every level, so not a generator.
        literal: see :func:`~eisnn_zoo.analysis.probes.probe`.
    """
    measured = {}
    for level in dict.fromkeys([*levels, 1.0]):
        modulation = Modulation()
        stream(model, (at_contrast(x, level, about) for x in batches), modulation, literal=literal)
        measured[level] = modulation.rms()
    rows = []
    for level in sorted(measured):
        for layer, (before, after) in measured[level].items():
            full_before, full_after = measured[1.0][layer]
            rows.append({"layer": layer, "contrast": level, "before_division": before / full_before if full_before else None,
                         "after_division": after / full_after if full_after else None})
    return rows


def exponent(rows: list[dict], layer: str, column: str) -> float | None:
    """Slope of log response over log contrast by least squares: 1 follows the input, 0 is perfect gain control."""
    points = [(math.log(r["contrast"]), math.log(r[column])) for r in rows if r["layer"] == layer and r[column]]
    if len(points) < 2:
        return None
    mean_x, mean_y = (sum(v) / len(points) for v in zip(*points))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
