"""Recordings of event cameras, made into frames.

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
from .folders import Damaged, npz_arrays

SENSOR = {"nmnist": 34, "cifar10dvs": 128, "dvsgesture": 128}  # pixels a side


def frames(x: np.ndarray, y: np.ndarray, p: np.ndarray, time_steps: int, size: int) -> np.ndarray:
    """Counts of events in T frames of an equal NUMBER of events; the last takes the remainder.

    Args:
        x, y: column and row of each event, in order of time; p: polarity, 0 or 1.
        size: pixels a side.
    Returns:
        ``[T, 2, size, size]``, uint8, or int16 or int32 where a count goes beyond that.
    """
    each = len(x) // time_steps
    frame = np.minimum(np.arange(len(x)) // max(each, 1), time_steps - 1) if each else np.full(len(x), time_steps - 1)
    place = ((frame * 2 + p) * size + y) * size + x.astype(np.int64)
    counts = np.bincount(place, minlength=time_steps * 2 * size * size).reshape(time_steps, 2, size, size)
    return counts.astype(next(kind for kind in (np.uint8, np.int16, np.int32) if counts.max() <= np.iinfo(kind).max))


def _checked(x, y, p, size: int, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if not all(a.ndim == 1 and a.dtype.kind in "iub" and len(a) == len(x) for a in (x, y, p)):
        raise Damaged(f"{path}: x, y and p of the events must be one whole number each")
    x, y, p = (a.astype(np.int64) for a in (x, y, p))
    if len(x) and not (x.min() >= 0 and y.min() >= 0 and max(x.max(), y.max()) < size and set(np.unique(p)) <= {0, 1}):
        raise Damaged(f"{path}: an event lies outside the {size}x{size} pixels, or its polarity is neither 0 nor 1")
    return x, y, p


def read_npz(path: Path, dataset: Dataset, time_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames ``[N, T, 2, H, W]`` and labels of a split in one file."""
    x, y, p, offset, label = npz_arrays(path, "x", "y", "p", "offset", "label")
    size = SENSOR[dataset.name]
    x, y, p = _checked(x, y, p, size, path)
    if not (label.ndim == offset.ndim == 1 and len(label) and label.dtype.kind in "iu" and offset.dtype.kind in "iu"):
        raise Damaged(f"{path}: label and offset must be lists of whole numbers")
    if len(offset) != len(label) + 1 or offset[0] != 0 or offset[-1] != len(x) or (np.diff(offset) < 0).any():
        raise Damaged(f"{path}: offset does not cut {len(x)} events into {len(label)} recordings")
    made = [frames(x[a:b], y[a:b], p[a:b], time_steps, size) for a, b in pairwise(offset)]
    return np.stack(made), label


def nmnist(root: Path, split: str, dataset: Dataset, time_steps: int):
    """The official folders ``Train/DIGIT/*.bin``: 5 bytes an event, x, y, then 1 bit of polarity and 23 of microseconds."""
    folder = root / {"train": "Train", "test": "Test"}[split]
    if not folder.is_dir():
        return None
    made, labels, size = [], [], SENSOR["nmnist"]
    for digit in sorted(d for d in folder.iterdir() if d.is_dir() and d.name.isdigit()):
        for path in sorted(digit.glob("*.bin")):
            raw = np.fromfile(path, np.uint8)
            if not len(raw) or len(raw) % 5:
                raise Damaged(f"{path} is damaged: {len(raw)} bytes are no whole number of events")
            x, y, rest = raw.reshape(-1, 5)[:, :3].T
            made.append(frames(*_checked(x, y, rest >> 7, size, path), time_steps, size))
            labels.append(int(digit.name))
    return (np.stack(made), np.array(labels)) if made else None


def _events_np(folder: Path, classes: list[str], keep, time_steps: int, size: int):
    made, labels = [], []
    for label, name in enumerate(classes):
        for path in keep(sorted((folder / name).glob("*.npz"))):
            made.append(frames(*_checked(*npz_arrays(path, "x", "y", "p"), size, path), time_steps, size))
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

    return _events_np(folder, sorted(dataset.label_names), keep, time_steps, SENSOR["cifar10dvs"])


def dvsgesture(root: Path, split: str, dataset: Dataset, time_steps: int):
    """``events_np/{train,test}/LABEL/*.npz``. Classes are counted in the order of their folders' names as texts (0, 1, 10, 2
    ...), as the paper's release has them."""
    folder = root / "events_np" / split
    if not folder.is_dir():
        return None
    return _events_np(folder, sorted(map(str, range(dataset.num_classes))), list, time_steps, SENSOR["dvsgesture"])
