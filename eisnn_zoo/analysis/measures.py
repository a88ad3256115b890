"""Measures of activity: firing rates, balance of excitation and inhibition, silent divisors, statistics of spike trains.

Each is a collector for :func:`~eisnn_zoo.analysis.probes.stream`: memory is a few numbers a neuron or a layer, however many
images pass. ``rows()`` gives one dictionary for each layer, ready for a table.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .probes import Activity

SATURATED = 0.95  # a neuron that fires at this share of all steps, or more, says no more than a silent one


class FiringRates:
    """Spikes per neuron and time step.

    Attributes:
        rates: after the stream, each layer's rate of every neuron over all images and steps, ``[C, H, W]`` or ``[n]``.
        over_time: each layer's mean rate at every step, ``[T]``.
    """

    def __init__(self):
        self._counts: dict[str, Tensor] = {}
        self._by_step: dict[str, Tensor] = {}
        self._images: dict[str, int] = {}

    def see(self, activity: Activity) -> None:
        s, name = activity["spikes"], activity.name
        _add(self._counts, name, s.sum((0, 1), dtype=torch.float64).cpu())
        _add(self._by_step, name, s.flatten(1).sum(1, dtype=torch.float64).cpu())
        self._images[name] = self._images.get(name, 0) + s.shape[1]

    @property
    def rates(self) -> dict[str, Tensor]:
        return {name: c / (self._images[name] * len(self._by_step[name])) for name, c in self._counts.items()}

    @property
    def over_time(self) -> dict[str, Tensor]:
        return {name: c / (self._images[name] * self._counts[name].numel()) for name, c in self._by_step.items()}

    def rows(self) -> list[dict]:
        """mean: spikes per neuron and step; silent: share of neurons that never fired; saturated: see SATURATED."""
        return [{"layer": name, "neurons": r.numel(), "mean": r.mean().item(), "std": r.std(correction=0).item(),
                 "silent": _share(r == 0), "saturated": _share(r >= SATURATED)} for name, r in self.rates.items()]


class Balance:
    """Excitatory drive I_EE against subtractive inhibition I_sub, over all entries of a layer, steps and images."""

    def __init__(self):
        self._moments: dict[str, Moments] = {}

    def see(self, activity: Activity) -> None:
        self._moments.setdefault(activity.name, Moments(2)).add(activity["I_EE"], activity["I_sub"])

    def rows(self) -> list[dict]:
        """ratio: mean I_sub / mean I_EE (1: balanced); correlation: Pearson's, of the two over entries;
        residual: RMS(I_EE - I_sub) / RMS(I_EE), what is left to drive the neurons."""
        rows = []
        for name, m in self._moments.items():
            (e, s), ((ee, es), (_, ss)) = m.mean.tolist(), m.covariance.tolist()
            rows.append({"layer": name, "I_EE": e, "I_sub": s, "ratio": _ratio(s, e),
                         "correlation": _ratio(es, math.sqrt(ee * ss)),
                         "residual": _ratio(math.sqrt(max(0.0, ee + ss - 2 * es) + (e - s) ** 2), math.sqrt(ee + e * e))})
        return rows


class ZeroDivisors:
    """How often the adaptive stabilization has to act: entries of I_div that are exactly 0, and slices with nothing else."""

    def __init__(self):
        self._totals: dict[str, Tensor] = {}

    def see(self, activity: Activity) -> None:
        silent = (activity["I_div"] == 0).flatten(2)
        totals = (silent.sum(), silent.numel(), silent.all(2).sum(), silent.shape[0] * silent.shape[1])
        _add(self._totals, activity.name, torch.tensor([float(n) for n in totals], dtype=torch.float64))

    def rows(self) -> list[dict]:
        """zero_entries: share of all entries; silent_slices: share of slices (a step of an image) that are zero throughout."""
        return [{"layer": name, "zero_entries": (t[0] / t[1]).item(), "silent_slices": (t[2] / t[3]).item()}
                for name, t in self._totals.items()]


class SpikeTrains:
    """Intervals between spikes and the variability of spike counts.

    Attributes:
        intervals: after the stream, each layer's number of inter-spike intervals of 0, 1, ... T-1 steps.
        by_chance: how many there would be on average with the same spikes at random times, each neuron's in each image by
            themselves: c spikes in T steps make (T - k) C(T-k-1, c-2) / C(T, c) intervals of k steps.
    """

    def __init__(self):
        self.intervals: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}
        self._squares: dict[str, Tensor] = {}
        self._trains: dict[str, Tensor] = {}  # by their number of spikes, 0 to T
        self._images: dict[str, int] = {}

    def see(self, activity: Activity) -> None:
        fired, name = activity["spikes"] > 0, activity.name
        steps = len(fired)
        last = torch.full(fired.shape[1:], -1, dtype=torch.int64, device=fired.device)
        intervals = torch.zeros(steps, dtype=torch.float64)
        for t in range(steps):
            again = fired[t] & (last >= 0)
            intervals += torch.bincount(t - last[again], minlength=steps).cpu()
            last[fired[t]] = t
        _add(self.intervals, name, intervals)
        _add(self._trains, name, torch.bincount(fired.sum(0).flatten(), minlength=steps + 1).double().cpu())
        counts = fired.sum(0).double()
        _add(self._counts, name, counts.sum(0).cpu())
        _add(self._squares, name, counts.square().sum(0).cpu())
        self._images[name] = self._images.get(name, 0) + counts.shape[0]

    @property
    def by_chance(self) -> dict[str, Tensor]:
        chance = {}
        for name, trains in self._trains.items():
            t = len(trains) - 1
            chance[name] = torch.tensor([0.0, *(sum(n * (t - k) * math.comb(t - k - 1, c - 2) / math.comb(t, c)
                                                    for c, n in enumerate(trains.tolist()) if c > 1) for k in range(1, t))],
                                        dtype=torch.float64)
        return chance

    def rows(self) -> list[dict]:
        """mean_interval, in steps, and cv_interval (std / mean), of all intervals inside the T steps (None: there is none);
        at_once: share of them that are one step long, and at_once_by_chance;
        fano: variance / mean of a neuron's spike count over images, averaged over the neurons that fire (Poisson: 1)."""
        rows, chance = [], self.by_chance
        for name, intervals in self.intervals.items():
            lengths, n = torch.arange(len(intervals)).double(), intervals.sum()
            mean = (intervals * lengths).sum() / n
            std = ((intervals * (lengths - mean).square()).sum() / n).sqrt()
            count = self._counts[name] / self._images[name]
            variance = self._squares[name] / self._images[name] - count.square()
            fano = (variance / count)[count > 0]
            rows.append({"layer": name, "intervals": int(n), "mean_interval": mean.item() if n else None,
                         "cv_interval": (std / mean).item() if n else None,
                         "at_once": _first_share(intervals), "at_once_by_chance": _first_share(chance[name]),
                         "fano": fano.mean().item() if len(fano) else None})
        return rows


class Moments:
    """Means and covariances of k variables, updated part by part without the loss of differences of large sums (Chan)."""

    def __init__(self, k: int):
        self.n = 0
        self.mean = torch.zeros(k, dtype=torch.float64)
        self._scatter = torch.zeros(k, k, dtype=torch.float64)

    @property
    def covariance(self) -> Tensor:
        """``[k, k]``, of the population."""
        return self._scatter / max(1, self.n)

    def add(self, *variables: Tensor, chunk: int = 1 << 20) -> None:
        """Equally many entries of each variable."""
        for parts in zip(*(v.reshape(-1).split(chunk) for v in variables)):
            x = torch.stack(parts).double()
            n, mean = x.shape[1], x.mean(1)
            centred = x - mean[:, None]
            shift = mean.cpu() - self.mean
            self._scatter += (centred @ centred.T).cpu() + torch.outer(shift, shift) * (self.n * n / (self.n + n))
            self.mean += shift * (n / (self.n + n))
            self.n += n


def _add(totals: dict[str, Tensor], name: str, value: Tensor) -> None:
    totals[name] = totals[name] + value if name in totals else value


def _first_share(intervals: Tensor) -> float | None:
    return _ratio(intervals[1].item(), intervals.sum().item()) if len(intervals) > 1 else None


def _share(mask: Tensor) -> float:
    return mask.double().mean().item()


def _ratio(a: float, b: float) -> float | None:
    return a / b if b else None
