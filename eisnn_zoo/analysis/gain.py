"""Gain control: how much of a change in the strength of the input arrives in the currents.

Divisive inhibition should flatten the response: with no bias, an E-I layer whose input is multiplied by c > 0 answers with
the same current, as numerator and divisor both grow by c.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .probes import Activity, stream


def at_contrast(x: Tensor, level: float, about: str = "black") -> Tensor:
    """The images x at a share of their contrast, ``[B, ...]``.

    Args:
        about: "black" multiplies the pixels (light dimmed; events that count less); "mean" draws them towards each image's
            mean (light kept); "events" keeps each event with probability level, the same ones every time.
    """
    if about == "black":
        return x * level
    if about == "events":
        return thin(x, level, torch.Generator().manual_seed(0))
    if about != "mean":
        raise ValueError(f"contrast is about 'black', 'mean' or 'events', not {about!r}")
    mean = x.flatten(1).mean(1).view(-1, *[1] * (x.dim() - 1))
    return mean + (x - mean) * level


def thin(x: Tensor, keep: float, rng: torch.Generator) -> Tensor:
    """Counts of events x of which each event is kept with this probability; counts that resizing made fractions are kept or
    lost as a whole."""
    x_, whole = x.cpu(), bool((x == x.round()).all())
    kept = (torch.binomial(x_, torch.full_like(x_, keep), generator=rng) if whole
            else x_ * (torch.rand(x_.shape, generator=rng) < keep))
    return kept.to(x)


class Modulation:
    """Collects each layer's modulation before the division, of I_EE - I_sub, and after it, of I.

    Modulation is the root mean square of a current's deviation from its channel's mean over the positions of an image, or,
    in a fully connected layer, over the images of a batch: what the image does to the current. The bias b_E is no part of it,
    nor are the outermost positions of a map, where the zero padding modulates whatever the image.
    """

    def __init__(self):
        self._sums: dict[str, list[float]] = {}  # of squares before and after, and entries

    def see(self, activity: Activity) -> None:
        sums = self._sums.setdefault(activity.name, [0.0, 0.0, 0])
        modulation, n = _squares(activity["I"])
        sums[1] += modulation
        sums[2] += n
        if activity.literal is not None:
            sums[0] += _squares(activity["I_EE"] - activity["I_sub"])[0]

    def rms(self) -> dict[str, tuple[float, float]]:
        return {name: (math.sqrt(before / n), math.sqrt(after / n)) for name, (before, after, n) in self._sums.items()}


def _squares(current: Tensor) -> tuple[float, int]:
    """(sum of squared deviations, entries)"""
    if current.dim() == 5 and min(current.shape[3:]) > 4:
        current = current[..., 1:-1, 1:-1]
    mean = current.mean((3, 4) if current.dim() == 5 else 1, keepdim=True)
    return (current - mean).square().sum(dtype=torch.float64).item(), current.numel()


def gain_rows(model: nn.Module, batches: Iterable[Tensor], levels: Iterable[float], about: str = "black") -> list[dict]:
    """One row for each level and layer: modulation before and after the division, in parts of that at level 1.

    A network without E-I layers has nothing before the division (None): its current is what counts as after.

    Args:
        batches: is run through once for every level, so not a generator.
    """
    measured = {}
    for level in dict.fromkeys([*levels, 1.0]):
        modulation = Modulation()
        stream(model, (at_contrast(x, level, about) for x in batches), modulation)
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
    return statistics.linear_regression(*zip(*points)).slope
