"""Pictures in folders, one folder per class."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import CONTROL
from ..errors import Damaged
from ..inference.images import open_image, preprocess
from ..inference.inputs import PICTURES, is_hidden, walk

VALIDATION = ("val", "valid", "validation", "test")  # names of a second split


def _square(image, channels: int, size: int, name: str) -> np.ndarray:
    """A Pillow image as uint8 ``[C, size, size]``, prepared exactly as for a prediction."""
    return np.rint(preprocess(image, (channels, size, size), name) * 255).astype(np.uint8)


def fit(x: np.ndarray, channels: int, size: int, where: Path) -> np.ndarray:
    """Arrays ``[N, C, H, W]`` with the network's channels and size."""
    from PIL import Image

    if x.shape[1:] == (channels, size, size):
        return x
    if x.shape[1] not in (1, 3):
        raise Damaged(f"{where}: pictures of {x.shape[1]} channels; 1 (grey) or 3 (RGB) can be used")
    rgb = np.repeat(x, 3, 1) if x.shape[1] == 1 else x
    return np.stack([_square(Image.fromarray(image.transpose(1, 2, 0)), channels, size, str(where)) for image in rgb])


@dataclass(frozen=True)
class Pictures:
    """Files, as the array uint8 ``[N, C, size, size]`` that they make, read when asked for."""

    paths: list[Path]
    channels: int
    size: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.paths), self.channels, self.size, self.size

    @property
    def nbytes(self) -> int:
        return len(self.paths) * self.channels * self.size**2

    def read(self, rows: Iterable[int], needed: slice = slice(None)) -> np.ndarray:
        """``[rows, C, size, size]``, zeros where a row is not needed. Raises ImageError for a file that is no sound picture."""
        rows = list(rows)
        out = np.zeros((len(rows), *self.shape[1:]), np.uint8)
        for place in range(len(rows))[needed]:
            path = str(self.paths[rows[place]])
            out[place] = _square(open_image(path), self.channels, self.size, path)
        return out


def _pictures(folder: Path) -> list[Path]:
    """Those in a folder and the folders in it, in the order of their names; none where there is no folder."""
    return [Path(name) for name in walk(folder, PICTURES)] if folder.is_dir() else []


def _split(classes: dict[str, Path], names: tuple[str, ...], channels: int, size: int) -> tuple[Pictures, np.ndarray]:
    paths, labels = [], []
    for label, name in enumerate(names):
        here = _pictures(classes[name]) if name in classes else []
        paths += here
        labels += [label] * len(here)
    return Pictures(paths, channels, size), np.array(labels, np.int64)


def has_classes(root: Path) -> bool:
    """Whether there are pictures in ``root/CLASS/`` or ``root/train/CLASS/``."""
    return any(_classes(folder) for folder in (root / "train", root))


def _classes(folder: Path) -> dict[str, Path]:
    """The folders in a folder that hold pictures themselves, by name in alphabetical order; none where there is no folder."""
    inside = [d for d in folder.iterdir() if d.is_dir() and not is_hidden(d)] if folder.is_dir() else []
    found: dict[str, Path] = {}
    for path in sorted(d for d in inside if any(p.suffix.lower() in PICTURES and not is_hidden(p) for p in d.glob("*"))):
        name = unicodedata.normalize("NFC", path.name)  # macOS may write an accent apart from its letter, others as one
        if CONTROL.search(name):
            raise Damaged(f"{folder}: {name!r} is no name for a class: write it in UTF-8, without control characters")
        if name in found:
            raise Damaged(f"{folder} holds two folders {name}, their accents written in two ways: merge them")
        found[name] = path
    return dict(sorted(found.items()))


def _all_seen(folder: Path, classes: dict[str, Path]) -> None:
    """Raises Damaged where a folder beside the classes holds pictures only in folders of its own: they would count as none."""
    for beside in sorted(d for d in folder.iterdir() if d.is_dir() and not is_hidden(d) and d not in classes.values()):
        if any(p.suffix.lower() in PICTURES and not is_hidden(p) for p in beside.rglob("*")):
            raise Damaged(f"{beside} holds pictures only in folders of its own, and is no class so: move them up, or it elsewhere")


def image_folder(root: Path, channels: int, size: int):
    """Pictures in ``root/CLASS/`` or ``root/train/CLASS/``, and the split beside train where there is one.

    Returns:
        x ``[N, C, size, size]``, y ``[N]``, class names in alphabetical order, and (x, y) of the other split or None.
    Raises:
        Damaged: no pictures in class folders, or more than 1000 classes.
    """
    train, classes = root / "train", _classes(root / "train")
    if not classes:  # a class can have that name
        train, classes = root, _classes(root)
    names = tuple(classes)
    if not names:
        raise Damaged(f"{root / 'train' if (root / 'train').is_dir() else root} holds no pictures in one folder per class")
    _all_seen(train, classes)
    if len(names) > 1000:
        raise Damaged(f"{train} holds {len(names)} classes, the most is 1000")
    x, y = _split(classes, names, channels, size)
    other = next((root / s for s in VALIDATION if train != root and (root / s).is_dir()), None)
    if other is None:
        return x, y, names, None
    there = _classes(other)
    _all_seen(other, there)
    if strange := [path for name, path in there.items() if name not in names]:
        raise Damaged(f"{strange[0]} is a class that {train} does not have")
    if not there:
        raise Damaged(f"{other} holds no pictures in one folder per class")
    return x, y, names, _split(there, names, channels, size)


def tiny_imagenet(root: Path, split: str, dataset, _steps):
    """The official folders: ``train/WNID/images/*.JPEG`` at 64 pixels; ``val`` (the test set), resized to 32."""
    root = root / "tiny-imagenet-200" if (root / "tiny-imagenet-200").is_dir() else root
    if not (root / "train").is_dir() or not (root / "val").is_dir():
        return None
    wnids = sorted(d.name for d in (root / "train").iterdir() if d.is_dir() and not is_hidden(d))
    if split == "train":
        found = [_pictures(root / "train" / wnid / "images") for wnid in wnids]
        if empty := next((wnid for wnid, pictures in zip(wnids, found) if not pictures), None):
            raise Damaged(f"{root / 'train' / empty / 'images'} holds no pictures: unpack the official archive again")
        paths = [(p, label) for label, pictures in enumerate(found) for p in pictures]
        return Pictures([p for p, _ in paths], 3, 64), np.array([label for _, label in paths])
    table = root / "val" / "val_annotations.txt"
    try:
        rows = [line.split("\t") for line in table.read_text("utf-8").splitlines() if line.strip()]
        paths = [(root / "val" / "images" / row[0], wnids.index(row[1])) for row in rows]
    except (OSError, IndexError, ValueError) as error:
        raise Damaged(f"{table} is missing or damaged ({error}): unpack the official archive again") from error
    return Pictures([p for p, _ in paths], 3, dataset.size), np.array([label for _, label in paths])
