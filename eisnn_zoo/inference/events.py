"""Recordings of event cameras, made into the frames that a network takes, with numpy alone."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..config import Config
from ..errors import Damaged
from ..files import npz_arrays, numpy_reason
from .images import reason, resize

RECORDINGS = {".bin", ".npz", ".npy"}
"""Suffixes of the files that hold events: N-MNIST's, x, y and p, or frames that are made already."""


def frames(x: np.ndarray, y: np.ndarray, p: np.ndarray, time_steps: int, size: int) -> np.ndarray:
    """Counts of events in T frames of an equal NUMBER of events; the last takes the remainder.

    Args:
        x, y: column and row of each event, in order of time; p: polarity, 0 or 1.
        size: pixels a side.
    Returns:
        ``[T, 2, size, size]``, uint8, or int16 or int32 where a count goes beyond that.
    """
    each = len(x) // time_steps
    frame = np.minimum(np.arange(len(x)) // each, time_steps - 1) if each else np.full(len(x), time_steps - 1)
    place = ((frame * 2 + p) * size + y) * size + x.astype(np.int64)
    counts = np.bincount(place, minlength=time_steps * 2 * size * size).reshape(time_steps, 2, size, size)
    return counts.astype(next(kind for kind in (np.uint8, np.int16, np.int32) if counts.max() <= np.iinfo(kind).max))


def checked(x: np.ndarray, y: np.ndarray, p: np.ndarray, size: int, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Events of a sensor of so many pixels a side, as int64. Raises Damaged."""
    if not all(a.ndim == 1 and a.dtype.kind in "iub" and len(a) == len(x) for a in (x, y, p)):
        raise Damaged(f"{path}: x, y and p of the events must be one whole number each")
    x, y, p = (a.astype(np.int64) for a in (x, y, p))
    if len(x) and not (x.min() >= 0 and y.min() >= 0 and max(x.max(), y.max()) < size and set(np.unique(p)) <= {0, 1}):
        raise Damaged(f"{path}: an event lies outside the {size}x{size} pixels, or its polarity is neither 0 nor 1")
    return x, y, p


def read_bin(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and p of an N-MNIST file: 5 bytes an event, x, y, then 1 bit of polarity and 23 of microseconds. Raises Damaged."""
    try:
        raw = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise Damaged(f"{path}: {reason(error)}") from error
    if not len(raw) or len(raw) % 5:
        raise Damaged(f"{path} is damaged: {len(raw)} bytes are no whole number of events")
    x, y, rest = raw.reshape(-1, 5)[:, :3].T
    return x, y, rest >> 7


def read_recording(name: str, config: Config, time_steps: int) -> np.ndarray:
    """One recording as a network takes it: float32 ``[T, 2, H, W]``.

    Args:
        name: of a ``.bin`` file of N-MNIST, an ``.npz`` with x, y and p, as spikingjelly unpacks the other sets, or a ``.npy`` of frames
            that are made already.
    Raises:
        Damaged: it is none of these, or does not fit the network.
    """
    path, (channels, side, _) = Path(name), config.input_size
    suffix = path.suffix.lower()
    if suffix not in RECORDINGS:
        raise Damaged(f"{name}: {config.model.name} takes recordings of events: a .bin file of N-MNIST, an .npz with x, y and p, or "
                      f"event frames, a .npy [{time_steps}, {channels}, {side}, {side}]")
    if not os.path.isfile(name):  # Path's own raises on a name that is too long
        raise Damaged(f"{name}: there is no such file")
    if suffix == ".npy":
        made = read_frames(path, channels)
        if made.shape != (time_steps, channels, side, side):
            raise Damaged(f"{name}: {list(made.shape)} instead of [{time_steps}, {channels}, {side}, {side}]")
        return made
    if suffix == ".bin":
        events = read_bin(path)
    else:
        x, y, p, offset = npz_arrays(path, "x", "y", "p", optional="offset")
        events = x, y, p
        if not x.size:
            raise Damaged(f"{name} holds no events")
        if offset.size > 2:  # a whole split
            raise Damaged(f"{name} holds {offset.size - 1} recordings: give one, or use eisnn-zoo eval with its folder as --data")
    size = (config.dataset and config.dataset.sensor) or side
    counts = frames(*checked(*events, size, path), time_steps, size).astype(np.float32)
    return counts if size == side else resize(counts, side)


def read_frames(path: str | Path, channels: int) -> np.ndarray:
    """Event frames from a .npy file: float32 ``[T, C, H, W]``. Raises Damaged."""
    try:
        made = np.load(path, mmap_mode="r", allow_pickle=False)  # a header can claim any size: nothing is read yet
    except Exception as error:  # numpy raises all kinds on damaged headers
        raise Damaged(f"{path}: no array of event frames ({numpy_reason(error)})") from error
    if not isinstance(made, np.ndarray) or made.ndim != 4 or made.shape[1] != channels or made.dtype.kind not in "iuf":
        raise Damaged(f"{path}: event frames are numbers [T, {channels}, H, W]")
    with np.errstate(over="ignore"):
        made = made.astype(np.float32)
    if not (np.isfinite(made).all() and (made >= 0).all()):
        raise Damaged(f"{path}: event frames are counts: finite in float32, and none below 0")
    return made
