"""Labelled images from local folders, as arrays: what training and evaluation see. Imports no torch."""

from __future__ import annotations

import gzip
import hashlib
import math
import pickle
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..catalog import Dataset
from ..config import CONTROL, unnamed
from ..errors import Damaged, UsageError, ZooError
from ..files import npz_arrays
from ..inference.images import resize
from ..inference.inputs import PICTURES
from . import events, folders

TEST_SET = "test set"  # what validation is where nothing was held out
FOLDER = "folder"  # the dataset that is whatever --data holds


class DataError(ZooError):
    """Data that is missing or unusable; the message says which file, and what to do."""


@dataclass(frozen=True)
class Labelled:
    """x: uint8 ``[N, C, H, W]``, event counts ``[N, T, C, H, W]``, or pictures still in their files; y: int64 ``[N]``."""

    x: np.ndarray | folders.Pictures
    y: np.ndarray
    label_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """These of x; pictures are read now."""
        return self.x.read(range(start, min(stop, len(self)))) if isinstance(self.x, folders.Pictures) else self.x[start:stop]

    def pixels(self, start: int, stop: int, size: int) -> np.ndarray:
        """These rows as a network takes them: float32, pixels in [0, 1] or counts of events, of the given side."""
        x = self.rows(start, stop).astype(np.float32)
        if x.shape[-2:] != (size, size):
            x = resize(x, size)
        return x if x.ndim == 5 else x / np.float32(255)

    @property
    def identity(self) -> str:
        """By which a run knows them again: a digest of classes, labels and pixels, or of pictures in files their names and sizes."""
        content = [self.sha256]
        if isinstance(self.x, folders.Pictures):
            content = [f"{label} {path.name} {path.stat().st_size}" for label, path in zip(self.y, self.x.paths)]
        return hashlib.sha256("\n".join([*self.label_names, *content]).encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def sha256(self) -> str:
        """Of the exact rows, for the record."""
        digest = hashlib.sha256()
        for start in range(0, len(self), 1000):
            digest.update(np.ascontiguousarray(self.rows(start, start + 1000)))
        digest.update(self.y)
        return digest.hexdigest()


def read(dataset: Dataset, root: str | Path, split: str, time_steps: int | None = None) -> Labelled:
    """One split of a dataset from a local folder.

    Looks for ``<split>.npz`` first (x: uint8 [N, H, W, C], y: [N]; for events one row of all events, see
    :mod:`~eisnn_zoo.training.events`), then for the official files.

    Args:
        split: "train" or "test".
        time_steps: frames per recording of events; the dataset's own T where None.
    Raises:
        DataError: nothing there, something damaged, or something that does not fit the dataset.
    """
    root = Path(root)
    if root.is_file():
        raise UsageError(f"{root} is a file: pass --data with its folder, {root.parent}")
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}: pass --data with the folder that holds {dataset.title}, or make it and "
                         f"{_FETCH[dataset.name]}")
    steps = time_steps or dataset.time_steps
    try:
        for name in (f"{split}.npz", f"{dataset.name}_{split}.npz"):
            if (root / name).is_file():
                x, y = events.read_npz(root / name, dataset, steps) if dataset.event else _npz(root / name)
                break
        else:
            found = _READERS[dataset.name](root, split, dataset, steps)
            if found is None:
                own = "; your own pictures are for `eisnn-zoo finetune`, and `eval --dataset folder`" if folders.has_classes(root) else ""
                raise DataError(f"{root} holds no {dataset.title}: {_FETCH[dataset.name]}; or put {split}.npz there{own}")
            x, y = found
    except Damaged as error:
        raise DataError(str(error)) from error
    if not len(y):
        raise DataError(f"{root} holds no {split} images of {dataset.title}")
    if not 0 <= y.min() <= y.max() < dataset.num_classes:
        raise DataError(f"{root}: labels run from {y.min()} to {y.max()}, {dataset.title} has {dataset.num_classes} classes")
    if x.shape[-3] != dataset.channels:
        raise DataError(f"{root}: {x.shape[-3]} channels, {dataset.title} has {dataset.channels}")
    return Labelled(x, y.astype(np.int64), dataset.label_names)


def read_folder(path: str | Path, channels: int, size: int) -> tuple[Labelled, Labelled | None]:
    """One's own pictures: an ``.npz`` file, a folder of ``train.npz``, or an ImageFolder (``[train/]CLASS/*.png``).

    Args:
        channels, size: as the network sees them; pictures are converted, resized and cropped in the middle.
    Returns:
        Training images, and the split beside them named val, valid or test, where there is one.
    """
    path = Path(path)
    if path.suffix.lower() in PICTURES and path.is_file():
        raise UsageError(f"{path} is a single picture: give the folder that holds one folder of pictures per class")
    try:
        if path.is_file() or (path / "train.npz").is_file():
            first = path if path.is_file() else path / "train.npz"
            train = _own(first, channels, size)
            others = [path / f"{s}.npz" for s in folders.VALIDATION if path.is_dir() and (path / f"{s}.npz").is_file()]
            valid = _own(others[0], channels, size) if others else None
        elif path.is_dir():
            x, y, names, other = folders.image_folder(path, channels, size)
            train, valid = Labelled(x, y, names), Labelled(*other, names) if other else None
        else:
            raise UsageError(f"there is no folder or .npz file {path}")
    except Damaged as error:
        raise DataError(str(error)) from error
    return train, None if valid is None else matched(valid, train.label_names, f"the validation split of {path}", "the training split")


def matched(images: Labelled, names: tuple[str, ...], what: str, whose: str) -> Labelled:
    """The images with these classes: by name, or by number where they have no names of their own.

    Raises:
        DataError: what (the images) holds a class that whose (the names) lacks.
    """
    own = images.label_names
    if own == unnamed(len(own)) and len(own) <= len(names):
        return replace(images, label_names=names)
    if strange := [name for name in own if name not in names]:
        raise DataError(f"{what} holds a class {strange[0]!r} that {whose} does not have")
    order = np.array([names.index(name) for name in own])
    return replace(images, y=order[images.y], label_names=names)


def _own(path: Path, channels: int, size: int) -> Labelled:
    x, y, given = _npz(path, optional="label_names")
    if not len(y):
        raise DataError(f"{path} holds no images")
    if y.min() < 0 or y.max() >= 1000:
        raise DataError(f"{path}: labels run from {y.min()} to {y.max()}; they must count from 0, to 999 at most")
    if given.ndim != 1 or (len(given) and given.dtype.kind != "U"):
        raise DataError(f"{path}: label_names must be a list of texts, got {given.dtype} {list(given.shape)}")
    names = tuple(map(str, given)) or unnamed(int(y.max()) + 1)
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"{path}: label_names holds {twice!r} twice")
    if strange := next(filter(CONTROL.search, names), None):
        raise DataError(f"{path}: label_names holds {strange!r}: leave control characters out")
    if len(names) <= y.max():
        raise DataError(f"{path}: {len(names)} label_names, but labels up to {y.max()}")
    return Labelled(folders.fit(x, channels, size, path), y.astype(np.int64), names)


# ---- files ----------------------------------------------------------------------------------------------------------


def _npz(path: Path, optional: str = "") -> list[np.ndarray]:
    x, y, *more = npz_arrays(path, "x", "y", optional=optional)
    if x.dtype != np.uint8 or x.ndim != 4 or 0 in x.shape[1:] or y.shape != (len(x),) or y.dtype.kind not in "iu":
        raise DataError(f"{path}: x must be uint8 [N, H, W, C] and y one whole number each, got {x.dtype} {list(x.shape)} "
                        f"and {y.dtype} {list(y.shape)}")
    return [np.ascontiguousarray(x.transpose(0, 3, 1, 2)), y, *more]


MAX_IDX = 2**30  # bytes: MNIST has 47 million
_ARRAYS = {("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"),
           ("_codecs", "encode")}


class _PlainUnpickler(pickle.Unpickler):
    """The official CIFAR files are pickles of arrays: nothing else is let in."""

    def find_class(self, module: str, name: str):
        if (module, name) in _ARRAYS:  # the module as a whole: to import another is to run it
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a data file")


def _cifar(root: Path, split: str, folder: str, files: dict[str, list[str]], label: bytes):
    folder_path = root / folder if (root / folder).is_dir() else root
    paths = [folder_path / name for name in files[split]]
    if not any(p.is_file() for p in paths):
        return None
    xs, ys = [], []
    for path in paths:
        try:
            with path.open("rb") as f:
                batch = _PlainUnpickler(f, encoding="bytes").load()
            x, y = np.asarray(batch[b"data"]), np.asarray(batch[label])
            if x.dtype != np.uint8 or y.dtype.kind not in "iu":
                raise ValueError(f"pixels are {x.dtype} and labels {y.dtype}")
            xs.append(x.reshape(-1, 3, 32, 32))
            ys.append(y.astype(np.int64).reshape(len(x)))
        except Exception as error:  # pickle raises all kinds on damaged files
            raise DataError(f"{path} is missing or damaged ({error}): unpack the official archive again") from error
    return np.concatenate(xs), np.concatenate(ys)


def _cifar10(root: Path, split: str, *_):
    files = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
    return _cifar(root, split, "cifar-10-batches-py", files, b"labels")


def _cifar100(root: Path, split: str, *_):
    return _cifar(root, split, "cifar-100-python", {"train": ["train"], "test": ["test"]}, b"fine_labels")


def _mnist(root: Path, split: str, dataset: Dataset, *_):
    prefix = {"train": "train", "test": "t10k"}[split]
    for folder in (root / "MNIST" / "raw", root):
        x, y = _idx(folder / f"{prefix}-images-idx3-ubyte"), _idx(folder / f"{prefix}-labels-idx1-ubyte")
        if x is not None and y is not None:
            if x.shape != (len(x), dataset.size, dataset.size) or y.shape != (len(x),):
                raise DataError(f"the {split} files of MNIST in {folder} do not go together: fetch them again")
            return x[:, None], y
    return None


def _idx(path: Path) -> np.ndarray | None:
    """An idx file of bytes, plain or gzipped: a magic number, the sizes (big-endian int32), the bytes."""
    for file, opener in ((path, open), (path.with_name(f"{path.name}.gz"), gzip.open)):
        if file.is_file():
            try:
                with opener(file, "rb") as f:
                    magic = f.read(4)
                    if len(magic) < 4 or magic[:3] != b"\0\0\x08":
                        raise ValueError("it does not begin as an idx file of bytes does")
                    shape = np.frombuffer(f.read(4 * magic[3]), ">i4").astype(int)
                    if len(shape) < magic[3] or shape.min(initial=1) < 1 or (size := math.prod(shape.tolist())) > MAX_IDX:
                        raise ValueError(f"its sizes are {shape.tolist()}")
                    content = f.read(size + 1)  # no more of it, whatever it unpacks to
                if len(content) != size:
                    raise ValueError(f"its header promises {size} bytes")
                return np.frombuffer(content, np.uint8).reshape(shape).copy()
            except (OSError, EOFError, ValueError, zlib.error) as error:
                raise DataError(f"{file} is damaged ({error}): fetch it again") from error
    return None


_READERS = {"cifar10": _cifar10, "cifar100": _cifar100, "mnist": _mnist, "tinyimagenet200": folders.tiny_imagenet,
            "nmnist": events.nmnist, "cifar10dvs": events.cifar10dvs, "dvsgesture": events.dvsgesture}
_FETCH = {
    "cifar10": "unpack https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz there (folder cifar-10-batches-py)",
    "cifar100": "unpack https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz there (folder cifar-100-python)",
    "mnist": "put the four idx files of MNIST (plain or .gz) into its folder MNIST/raw",
    "tinyimagenet200": "unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip there (folder tiny-imagenet-200)",
    "nmnist": "unpack Train.zip and Test.zip of https://www.garrickorchard.com/datasets/n-mnist there (folders Train, Test)",
    "cifar10dvs": "put the archives of https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671 into its folder download "
                  "and let spikingjelly.datasets.CIFAR10DVS, of pip install 'eisnn-zoo[events]', unpack them (folder events_np)",
    "dvsgesture": "put DvsGesture.tar.gz of https://research.ibm.com/interactive/dvsgesture/ into its folder download and let "
                  "spikingjelly.datasets.DVS128Gesture, of pip install 'eisnn-zoo[events]', unpack it (folder events_np)",
}
