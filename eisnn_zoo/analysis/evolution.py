"""A network over its training: the snapshots that ``train --record`` kept, and the run's metrics beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ZooError
from ..files import read_metrics
from .histograms import NOT_FINITE
from .parameters import SYNAPSES
from .snapshot import Snapshot, load_snapshots

SILENCE = 1e-3  # spikes per neuron and step; a layer below it has fallen silent


@dataclass(frozen=True)
class Evolution:
    """A run as it was recorded.

    Attributes:
        snapshots: by epoch, at least one. metrics: rows of the run's metrics.csv, as numbers.
    """

    name: str
    snapshots: list[Snapshot]
    metrics: list[dict[str, float]]

    @property
    def first(self) -> Snapshot:
        return self.snapshots[0]

    @property
    def last(self) -> Snapshot:
        return self.snapshots[-1]

    @property
    def epochs(self) -> list[int]:
        """That were recorded."""
        return [s.epoch for s in self.snapshots]

    @property
    def layers(self) -> list[str]:
        """Of neurons, in the order in which they run."""
        return [row["layer"] for row in self.first.activity]

    def accuracy(self, epoch: int) -> float | None:
        """Top-1 in % on the validation images after this epoch."""
        return next((row["valid_top1"] for row in self.metrics if row["epoch"] == epoch), None)

    def then_and_now(self, say: Callable[[Snapshot], str]) -> str:
        """Something at the first and at the last record: "3 % at the start, 5 % at epoch 9"."""
        ends = [self.first, self.last] if len(self.snapshots) > 1 else [self.first]
        return ", ".join(f"{say(s)} at {'the start' if s.epoch == 0 else f'epoch {s.epoch}'}" for s in ends)


def read_evolution(run: Path) -> Evolution:
    """Raises: UsageError, ZooError, see :func:`~eisnn_zoo.analysis.snapshot.load_snapshots`; or damaged metrics."""
    snapshots = load_snapshots(run)
    if len({tuple(row["layer"] for row in s.activity) for s in snapshots}) > 1:
        raise ZooError(f"{run} holds records of different networks: train into a folder of its own")
    return Evolution(run.resolve().name, snapshots, read_metrics(run))


def zeros(s: Snapshot, layer: str | None = None, names: tuple[str, ...] = SYNAPSES) -> float | None:
    """Share of the synapses (of a layer) that are exactly 0; None where there are none of these names."""
    own = [row for row in s.parameters if row["parameter"] in names and layer in (None, row["layer"])]
    return sum(row["zeros"] * row["n"] for row in own) / sum(row["n"] for row in own) if own else None


def mean_of(s: Snapshot, key: str) -> float:
    """Mean of a measure of activity over all neurons."""
    return sum(row[key] * row["neurons"] for row in s.activity) / sum(row["neurons"] for row in s.activity)


def not_finite(s: Snapshot) -> float:
    """Share of the currents I that are infinite or not a number."""
    own = [counts for (_, name), counts in s.histograms.items() if name == "I"]
    return sum(int(c[NOT_FINITE]) for c in own) / sum(int(c.sum()) for c in own)


def silent_layers(s: Snapshot) -> list[int]:
    """Numbers, from 1, of the layers that have fallen silent."""
    return [i for i, row in enumerate(s.activity, 1) if row["mean"] < SILENCE]


def coefficient(row: dict) -> float | None:
    """Bimodality of a row of parameters: of log10 of what is above zero, but of the values of b_E, which has either sign."""
    value = row["bimodality"] if row["parameter"] == "b_E" else row["bimodality_log"]
    return None if value is None or not np.isfinite(value) else value
