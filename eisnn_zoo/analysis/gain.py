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


class Drive:
    """Collects each layer's root mean square of I_EE - I_sub, before the division, and of I - b_E, after it."""

    def __init__(self):
        self._moments: dict[str, Moments] = {}

    def see(self, activity: Activity) -> None:
        net = activity["I_EE"] - activity["I_sub"]
        b = activity.layer.current.b_e.detach()
        evoked = activity["I"] - (b[:, None, None] if net.dim() == 5 else b)
        self._moments.setdefault(activity.name, Moments(2)).add(net, evoked)

    def rms(self) -> dict[str, tuple[float, float]]:
        return {name: tuple((m.covariance.diag() + m.mean.square()).sqrt().tolist()) for name, m in self._moments.items()}


def gain_rows(model: nn.Module, batches: Iterable[Tensor], levels: Iterable[float] = LEVELS, about: str = "black",
              literal: nn.Module | None = None) -> list[dict]:
    """One row for each level and layer: RMS of the current before and after the division, in parts of that at level 1.

    Args:
        batches: is run through once for every level, so not a generator.
        literal: see :func:`~eisnn_zoo.analysis.probes.probe`.
    """
    measured = {}
    for level in dict.fromkeys([*levels, 1.0]):
        drive = Drive()
        stream(model, (at_contrast(x, level, about) for x in batches), drive, literal=literal)
        measured[level] = drive.rms()
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
