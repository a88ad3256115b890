"""Data for training and evaluation. Small image sets live whole on the device, as uint8."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..catalog import Dataset


class DataError(ValueError):
    """Data that is missing or unusable; the message says what to do."""


@dataclass
class Images:
    """x: uint8 ``[N, C, H, W]`` (or event counts ``[N, T, C, H, W]``); y: int64 ``[N]``."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device) -> Images:
        return Images(self.x.to(device), self.y.to(device))

    def __getitem__(self, rows: Tensor) -> Images:
        return Images(self.x[rows], self.y[rows])


def load(dataset: Dataset, root: str | Path, split: str) -> Images:
    """One split of a dataset from a local folder.

    Looks for ``<split>.npz`` (x: uint8 [N, H, W, C], y: [N]) first, then for the official files.

    Args:
        split: "train" or "test".
    Raises:
        DataError: nothing there, or something that does not fit the dataset.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"there is no folder {root}: pass --data with the folder that holds {dataset.title}")
    for name in (f"{split}.npz", f"{dataset.name}_{split}.npz"):
        if (root / name).is_file():
            return _npz(root / name, dataset)
    reader = _OFFICIAL.get(dataset.name)
    images = reader(root, split) if reader else None
    if images is None:
        raise DataError(f"{root} holds no {dataset.title}: {_FETCH.get(dataset.name, '')} "
                        f"put {split}.npz (x: uint8 [N, H, W, C], y: [N]) there".replace(":  put", ": put"))
    return images


_FETCH = {
    "cifar10": "unpack cifar-10-python.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html there (folder cifar-10-batches-py), or",
    "cifar100": "unpack cifar-100-python.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html there (folder cifar-100-python), or",
    "mnist": "put the four idx files of MNIST into its folder MNIST/raw, or",
}


def _npz(path: Path, dataset: Dataset) -> Images:
    try:
        with np.load(path, allow_pickle=False) as data:
            x, y = data["x"], data["y"]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise DataError(f"{path} is no .npz file with x and y: {error}") from error
    if x.dtype != np.uint8 or x.ndim != 4 or len(x) != len(y):
        raise DataError(f"{path}: x must be uint8 [N, H, W, C] with a label each, got {x.dtype} {list(x.shape)}, {len(y)} labels")
    if len(y) and not 0 <= y.min() <= y.max() < dataset.num_classes:
        raise DataError(f"{path}: labels run from {y.min()} to {y.max()}, {dataset.title} has {dataset.num_classes} classes")
    return Images(torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(y.astype(np.int64)))


class _PlainUnpickler(pickle.Unpickler):
    """The official CIFAR files are pickles of arrays: nothing else is let in."""

    def find_class(self, module: str, name: str):
        if (module.split(".")[0], name) in {("numpy", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a data file")


def _cifar(root: Path, split: str, folder: str, files: dict[str, list[str]], label: bytes) -> Images | None:
    folder_path = root / folder if (root / folder).is_dir() else root
    paths = [folder_path / name for name in files[split]]
    if not any(p.is_file() for p in paths):
        return None
    xs, ys = [], []
    for path in paths:
        try:
            with open(path, "rb") as f:
                batch = _PlainUnpickler(f, encoding="bytes").load()
            xs.append(np.asarray(batch[b"data"], np.uint8).reshape(-1, 3, 32, 32))
            ys.extend(batch[label])
        except (OSError, EOFError, pickle.UnpicklingError, KeyError, ValueError) as error:
            raise DataError(f"{path} is missing or damaged ({error}): unpack the official archive again") from error
    return Images(torch.from_numpy(np.concatenate(xs)), torch.tensor(ys, dtype=torch.int64))


def _cifar10(root: Path, split: str) -> Images | None:
    files = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
    return _cifar(root, split, "cifar-10-batches-py", files, b"labels")


def _cifar100(root: Path, split: str) -> Images | None:
    return _cifar(root, split, "cifar-100-python", {"train": ["train"], "test": ["test"]}, b"fine_labels")


def _mnist(root: Path, split: str) -> Images | None:
    import gzip

    prefix = {"train": "train", "test": "t10k"}[split]
    for folder in (root / "MNIST" / "raw", root):
        found = {}
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
            for suffix, opener in (("", open), (".gz", gzip.open)):
                path = folder / f"{prefix}-{kind}{suffix}"
                if path.is_file():
                    with opener(path, "rb") as f:
                        found[kind] = f.read()
                    break
        if len(found) == 2:
            x = np.frombuffer(found["images-idx3-ubyte"], np.uint8, offset=16)
            y = np.frombuffer(found["labels-idx1-ubyte"], np.uint8, offset=8)
            if len(x) != len(y) * 784:
                raise DataError(f"the {split} files of MNIST in {folder} are damaged: fetch them again")
            return Images(torch.from_numpy(x.reshape(-1, 1, 28, 28).copy()), torch.from_numpy(y.astype(np.int64)))
    return None


_OFFICIAL = {"cifar10": _cifar10, "cifar100": _cifar100, "mnist": _mnist}


def hold_out(images: Images, n: int, seed: int) -> tuple[Images, Images]:
    """(the rest, n images set aside), by a seeded permutation."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return images[order[n:]], images[order[:n]]
