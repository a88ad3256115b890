"""A network at one moment of its training: distributions of parameters, currents and rates, a few kilobytes in all.

A run that records keeps one file for each chosen epoch in its folder ``evolution``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from torch import Tensor

from ..errors import UsageError, ZooError
from ..files import numpy_reason, write_atomic
from ..networks import SpikingNet
from .histograms import BINS, CurrentHistograms, count
from .measures import Balance, FiringRates, ZeroDivisors
from .parameters import ei_parameters, parameter_rows
from .probes import stream

FOLDER = "evolution"  # of a run

@dataclass(frozen=True)
class Snapshot:
    """What is kept of one epoch.

    Attributes:
        epoch: epochs trained before; 0 is the start.
        images, time_steps: on which the activity was measured.
        parameters: rows of :func:`~eisnn_zoo.analysis.parameters.parameter_rows`.
        activity: one row a layer: firing rates, balance, zero divisors.
        histograms: counts on the grid of :mod:`~eisnn_zoo.analysis.histograms`, ``[BINS]`` by (layer, quantity); "rate" is
            that of each neuron, in spikes per step.
        threshold: of the neurons, in the membrane's units.
    """

    epoch: int
    images: int
    time_steps: int
    parameters: list[dict]
    activity: list[dict]
    histograms: dict[tuple[str, str], np.ndarray]
    threshold: float = 1.0  # the default of every network, and of records that do not say

    def save(self, folder: Path) -> Path:
        """Writes ``epoch_NNNN.npz`` (plain arrays, no pickle) whole or not at all."""
        facts = {k: v for k, v in asdict(self).items() if k != "histograms"}
        out = io.BytesIO()
        np.savez_compressed(out, facts=np.array(json.dumps(facts)), layer=np.array([l for l, _ in self.histograms]),
                            quantity=np.array([q for _, q in self.histograms]), counts=np.stack(list(self.histograms.values())))
        path = folder / f"epoch_{self.epoch:04d}.npz"
        write_atomic(path, out.getvalue())
        return path

def take(network: SpikingNet, batches: Iterable[Tensor], epoch: int) -> Snapshot:
    """Looks at a network on batches of images or frames, in evaluation mode and in the network's own precision."""
    currents, rates, balance, zeros = CurrentHistograms(), FiringRates(), Balance(), ZeroDivisors()
    images = 0

    def counted():
        nonlocal images
        for x in batches:
            images += len(x)
            yield x

    stream(network, counted(), currents, rates, *((balance, zeros) if network.kind == "ei" else ()))
    rows = {row["layer"]: row for row in rates.rows()}
    for row in (*balance.rows(), *zeros.rows()):
        rows[row["layer"]] |= row
    counts = {(layer, name): count(p) for layer, own in ei_parameters(network).items() for name, p in own.items()}
    counts |= currents.counts | {(layer, "rate"): count(r) for layer, r in rates.rates.items()}
    return Snapshot(epoch, images, network.time_steps, parameter_rows(network), list(rows.values()),
                    {place: c.numpy() for place, c in counts.items()}, network.config["threshold"])

def load_snapshots(run: Path) -> list[Snapshot]:
    """All that a run kept, by epoch.

    Raises:
        UsageError: the folder is no run, or it kept nothing. ZooError: a damaged file.
    """
    if not run.is_dir():
        raise UsageError(f"there is no run folder {run}")
    paths = sorted((run / FOLDER).glob("epoch_*.npz"))
    if not paths:
        raise UsageError(f"{run} keeps no record of its training: train with `eisnn-zoo train RECIPE --record`")
    return sorted((_load(path) for path in paths), key=lambda s: s.epoch)


def _load(path: Path) -> Snapshot:
    try:
        with np.load(path, allow_pickle=False) as file:
            facts = json.loads(str(file["facts"]))
            places = list(zip(file["layer"].tolist(), file["quantity"].tolist(), strict=True))
            counts = file["counts"]
        if counts.shape != (len(places), BINS) or counts.dtype != np.int64:
            raise ValueError(f"counts {counts.dtype} {counts.shape}")
        return Snapshot(**facts, histograms=dict(zip(places, counts)))
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise ZooError(f"{path} is no record of an epoch, or is damaged: {numpy_reason(error)[:200]}") from error
