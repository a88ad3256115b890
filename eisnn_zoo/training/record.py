"""Evolution: what `train --record` keeps of a network at chosen epochs, in the run folder's ``evolution``.

The snapshots are taken of a copy of the network, so a run is the same bits with and without them. An epoch that is finished
again after an interruption writes the same file again.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..analysis.snapshot import FOLDER, take
from ..errors import UsageError, ZooError
from ..files import write_atomic
from .augment import pixels
from .engine import Training
from .schedule import batches

IMAGES, BATCH = 64, 16
MOMENTS = 11  # of the default choice, besides the start
PLAN = "epochs.json"


def choose_epochs(text: str, epochs: int) -> list[int]:
    """Epochs to record, of a run of so many: "auto" (the start, the last, and closer together early than late), "all", or
    numbers by commas, as in 0,1,10. Raises UsageError."""
    if text == "all":
        return list(range(epochs + 1))
    if text == "auto":
        return [0, *sorted({round(e) for e in np.geomspace(1, epochs, MOMENTS).tolist()})]
    try:
        chosen = sorted({int(part) for part in text.split(",")})
    except ValueError:
        chosen = []
    if not chosen or chosen[0] < 0 or chosen[-1] > epochs:
        raise UsageError(f"--record-at {text}: all, or epochs from 0 (the start) to {epochs}, separated by commas")
    return chosen


def planned(run: Path) -> list[int]:
    """The epochs that a run was asked to record; none where it was not. Raises ZooError."""
    path = run / FOLDER / PLAN
    try:
        return [int(e) for e in json.loads(path.read_text("utf-8"))] if path.exists() else []
    except (OSError, ValueError, TypeError) as error:
        raise ZooError(f"{path} is damaged: {error}; pass --record or --record-at to choose again") from error


class Recorder:
    """Keeps snapshots of a training at these epochs; a hook of the training.

    The images are the first of those that E-I Init sees, unchanged by augmentation, at the recipe's last T in every epoch, so
    that only the weights differ.
    """

    def __init__(self, training: Training, epochs: Sequence[int]):
        self.training, self.epochs = training, set(epochs)
        self.folder = training.run.folder / FOLDER
        self.folder.mkdir(exist_ok=True)
        for leftover in self.folder.glob(".*"):  # of a process that was killed in a write
            leftover.unlink(missing_ok=True)
        write_atomic(self.folder / PLAN, json.dumps(sorted(self.epochs)) + "\n")
        if training.step == 0 and 0 in self.epochs:
            self._take(0)

    def __call__(self, row: dict, _step: int) -> None:
        ends = row["epoch"] == self.training.recipe.epochs or self.training.reached  # wherever that comes: runs are extended too
        if row["epoch"] in self.epochs or ends:
            self._take(row["epoch"])

    def _take(self, epoch: int) -> None:
        training = self.training
        network = copy.deepcopy(training.judged)
        network.time_steps = training.recipe.final_steps
        rows = next(batches(len(training.data.train), IMAGES, training.recipe.seed, 0))
        images = (pixels(training.data.train[part].x.to(training.device), training.size) for part in rows.split(BATCH))
        take(network, images, epoch).save(self.folder)


def record(training: Training, epochs: Sequence[int]) -> None:
    """Lets a training record these epochs (all processes call this, the first one records)."""
    if epochs and training.world.first:
        training.hooks.append(Recorder(training, epochs))
