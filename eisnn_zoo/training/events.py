"""Sets of recordings of event cameras.

One ``.npz`` holds a split in one row of all events: ``x``, ``y``, ``p`` (0 or 1), ``offset`` [N+1] where each recording
begins, ``label`` [N]. The folders ``events_np`` are those that spikingjelly's data sets unpack (one ``.npz`` with x, y, p a
recording); N-MNIST is read from its official files.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..catalog import Dataset
from ..errors import Damaged
from ..files import npz_arrays
from ..inference.events import checked, frames, read_bin


def read_npz(path: Path, dataset: Dataset, time_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames ``[N, T, 2, H, W]`` and labels of a split in one file."""
    x, y, p, offset, label = npz_arrays(path, "x", "y", "p", "offset", "label")
    size = dataset.sensor
    x, y, p = checked(x, y, p, size, path)
    if not (label.ndim == offset.ndim == 1 and len(label) and label.dtype.kind in "iu" and offset.dtype.kind in "iu"):
        raise Damaged(f"{path}: label and offset must be lists of whole numbers")
    if len(offset) != len(label) + 1 or offset[0] != 0 or offset[-1] != len(x) or (offset[1:] < offset[:-1]).any():
        raise Damaged(f"{path}: offset does not cut {len(x)} events into {len(label)} recordings")
    made = [frames(x[a:b], y[a:b], p[a:b], time_steps, size) for a, b in pairwise(offset)]
    return np.stack(made), label


def nmnist(root: Path, split: str, dataset: Dataset, time_steps: int):
    """The official folders ``Train/DIGIT/*.bin``."""
    folder = root / {"train": "Train", "test": "Test"}[split]
    if not folder.is_dir():
        return None
    made, labels, size = [], [], dataset.sensor
    for digit in sorted(d for d in folder.iterdir() if d.is_dir() and d.name.isdigit()):
        for path in sorted(digit.glob("*.bin")):
            made.append(frames(*checked(*read_bin(path), size, path), time_steps, size))
            labels.append(int(digit.name))
    return (np.stack(made), np.array(labels)) if made else None


def _events_np(folder: Path, classes: list[str], keep, time_steps: int, size: int):
    made, labels = [], []
    for label, name in enumerate(classes):
        for path in keep(sorted((folder / name).glob("*.npz"))):
            made.append(frames(*checked(*npz_arrays(path, "x", "y", "p"), size, path), time_steps, size))
            labels.append(label)
    return (np.stack(made), np.array(labels)) if made else None


def cifar10dvs(root: Path, split: str, dataset: Dataset, time_steps: int):
    """``events_np/CLASS/*.npz``: in the order of names, the first 90 % of each class train, the rest tests."""
    folder = root / "events_np"
    if not folder.is_dir():
        return None

    def keep(paths: list[Path]) -> list[Path]:
        cut = math.ceil(len(paths) * 0.9)
        return paths[:cut] if split == "train" else paths[cut:]

    return _events_np(folder, sorted(dataset.label_names), keep, time_steps, dataset.sensor)


def dvsgesture(root: Path, split: str, dataset: Dataset, time_steps: int):
    """``events_np/{train,test}/LABEL/*.npz``. Classes are counted in the order of their folders' names as texts (0, 1, 10, 2
    ...), as the paper's release has them."""
    folder = root / "events_np" / split
    if not folder.is_dir():
        return None
    return _events_np(folder, sorted(map(str, range(dataset.num_classes))), list, time_steps, dataset.sensor)
