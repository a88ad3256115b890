"""Measuring a network on labelled images. Imports no torch: a network here is a function of arrays."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..catalog import DATASETS, Dataset
from ..config import Config
from ..errors import UsageError, ZooError
from ..table import Weights
from .folders import has_classes
from .reading import FOLDER, TEST_SET, Labelled, matched, read, read_folder

BINS = 15  # of confidence, equally wide, as Guo et al. have them (2017, arXiv 1706.04599)


@dataclass(frozen=True)
class Scores:
    """What one pass over labelled images shows.

    Attributes:
        loss: mean cross-entropy.
        top5: share in % whose class is among the five best (of fewer classes: among all).
        confusion: ``[classes, classes]``, images by true class (row) and predicted class (column).
        bins: ``[BINS, 3]``, by the probability of the predicted class: images, the sum of that probability, right ones.
        seconds: of the whole pass.
    """

    loss: float
    top5: float
    confusion: np.ndarray
    bins: np.ndarray
    seconds: float

    @classmethod
    def of(cls, sums: np.ndarray, seconds: float) -> Scores:
        """From the sum of all :func:`tally`. Raises ZooError of logits that are no numbers."""
        (loss, top5), bins, confusion = np.split(sums, [2, 2 + 3 * BINS])
        if np.isnan(loss):
            raise ZooError("the network answers with what are no numbers, so nothing can be said of its accuracy: its weights are damaged")
        side = round(len(confusion) ** 0.5)
        matrix = confusion.astype(np.int64).reshape(side, side)
        return cls(float(loss / matrix.sum()), float(100 * top5 / matrix.sum()), matrix, bins.reshape(BINS, 3), seconds)

    @property
    def images(self) -> int:
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        return 100 * int(self.confusion.trace()) / self.images

    @property
    def confidence(self) -> float:
        """The probability in % that the network gives its answers, on average over the images."""
        return 100 * float(self.bins[:, 1].sum()) / self.images

    @property
    def calibration_error(self) -> float:
        """Expected calibration error in points: how far confidence lies from accuracy, on average over the images, bin by bin."""
        return 100 * float(np.abs(self.bins[:, 1] - self.bins[:, 2]).sum()) / self.images

    @property
    def per_class(self) -> list[float | None]:
        """Top-1 accuracy in % within each true class; None for a class without images."""
        counts = self.confusion.sum(1).tolist()
        return [100 * int(self.confusion[i, i]) / n if n else None for i, n in enumerate(counts)]


def no_tally(classes: int) -> np.ndarray:
    """The :func:`tally` of no image."""
    return np.zeros(2 + 3 * BINS + classes**2)


def tally(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What adds up over batches: cross-entropy, images whose class is among the five best, bins of confidence, confusion row by row;
    float64.

    Args:
        logits: ``[B, classes]``; y: ``[B]``.
    """
    z, classes, each = logits.astype(np.float64), logits.shape[1], np.arange(len(y))
    z = z - z.max(1, keepdims=True, initial=-np.inf)
    total = np.exp(z).sum(1)
    loss = np.log(total) - z[each, y]
    best = np.argsort(-z, 1, kind="stable")[:, :5]
    right, confidence = best[:, 0] == y, np.nan_to_num(1 / total)  # the largest z is 0
    place = np.minimum((BINS * confidence).astype(int), BINS - 1)
    bins = np.stack([np.bincount(place, weights, BINS) for weights in (None, confidence, right)], 1)
    confusion = np.bincount(y * classes + best[:, 0], minlength=classes**2)
    return np.concatenate([[loss.sum(), (best == y[:, None]).sum()], bins.ravel(), confusion])


def evaluate(network: Callable[[np.ndarray], np.ndarray], images: Labelled, size: int, batch_size: int = 250) -> Scores:
    """Scores of a network, from what it takes to logits ``[B, classes]``.

    Args:
        size: pixels a side that the network takes, where the images may be larger.
    """
    start, sums = time.perf_counter(), no_tally(len(images.label_names))
    for i in range(0, len(images), batch_size):
        sums += tally(network(images.pixels(i, i + batch_size, size)), images.y[i : i + batch_size])
    return Scores.of(sums, time.perf_counter() - start)


def collect_evidence(evidence: Callable[[np.ndarray], np.ndarray], images: Labelled, size: int, batch_size: int = 250) -> np.ndarray:
    """Logits of every single time step for all images, ``[T, N, classes]``."""
    return np.concatenate([evidence(images.pixels(i, i + batch_size, size)) for i in range(0, len(images), batch_size)], 1)


def _said(value: int) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def test_images(config: Config, root: Path, dataset: str | None, time_steps: int) -> tuple[Labelled, str, Dataset | None]:
    """The labelled images on which to measure a network, with its class names; what they are, in words; and their dataset.

    Args:
        dataset: of the catalog; "folder" for one's own pictures, whose classes are matched by name; None for the one the network
            was trained on, for a network of other classes the folder.
    Raises:
        UsageError: no such dataset, or one that is not what the network takes. DataError: see :func:`read`.
    """
    own = config.dataset
    if dataset is None:
        if own and config.label_names == own.label_names:
            dataset = own.name
        elif not root.exists():
            raise UsageError(f"there is no folder {root}: pass --data with the folder that holds the images")
        elif root.is_file() or (root / "train.npz").is_file() or has_classes(root):
            dataset = FOLDER
        else:
            raise UsageError(f"{config.name} belongs to no dataset of the zoo: say which it is measured on, as in --dataset cifar10, or "
                             "give your own pictures, in one folder per class")
    if dataset != FOLDER:
        if dataset not in DATASETS:
            raise UsageError(f"there is no dataset {dataset!r}: choose one of {', '.join(DATASETS)}, or {FOLDER}")
        found = DATASETS[dataset]
        for what, network, data in (("classes", len(config.label_names), found.num_classes),
                                    ("input channels", config.input_size[0], found.channels),
                                    ("frames of events", config.event_input, found.event)):
            if network != data:
                raise UsageError(f"{config.name} cannot be measured on {found.title}: {what}: {_said(network)}, there {_said(data)}")
        return read(found, root, "test", time_steps), f"{found.title} test", found
    train, valid = read_folder(root, *config.input_size[:2])
    images = train if valid is None else valid
    title = f"{root}" if valid is None else f"{root}, its validation split"
    if valid is None and config.facts.get("held_out") and config.facts.get("measured_on") != TEST_SET:
        title += " (all of it: too high a figure, if the network was trained on most of it)"
    return matched(images, config.label_names, str(root), config.name), title, None


def compare(config: Config, row: Weights | None, title: str, dataset: Dataset | None, scores: Scores, time_steps: int) -> dict:
    """What was measured, and what the weights' own record says should be.

    Args:
        row: of the table of weights, where they have one.
        title, dataset: of the images, from :func:`test_images`.
    """
    facts = config.facts
    expected, source, steps = (row.top1, row.obtained, row.steps) if row else (
        facts.get("top1"), facts.get("measured_on"), config.time_steps)
    own = dataset is not None and dataset == (config.model if row else config).dataset and (row or source == TEST_SET)
    same = bool(own) and isinstance(expected, (int, float)) and time_steps == steps
    among = facts.get("test_images") or (dataset.test_images if dataset else 0)
    return {"model": config.name, "data": title, "images": scores.images, "time_steps": time_steps,
            "top1": round(scores.top1, 2), "top5": round(scores.top5, 2), "loss": round(scores.loss, 4),
            "mean_confidence": round(scores.confidence, 2), "calibration_error": round(scores.calibration_error, 2),
            "expected_top1": expected if same else None, "expected_from": source if same else None,
            "expected_images": among if same and among != scores.images else None,  # then the figures do not compare
            "difference": round(scores.top1 - expected, 2) if same and among == scores.images else None,
            "images_per_s": round(scores.images / scores.seconds, 1)}
