"""Measuring a network on images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..catalog import DATASETS, Dataset
from ..config import Config
from ..errors import UsageError
from ..networks import SpikingNet
from ..weights import Located
from .augment import pixels
from .data import TEST_SET, DataError, Images, load, load_folder
from .recipe import FOLDER
from .world import World


@dataclass(frozen=True)
class Scores:
    """What one pass over labelled images shows.

    Attributes:
        loss: mean cross-entropy.
        top5: share in % whose class is among the five best (of fewer classes: among all).
        confusion: ``[classes, classes]``, images by true class (row) and predicted class (column).
        seconds: of the forward passes.
    """

    loss: float
    top5: float
    confusion: Tensor
    seconds: float

    @property
    def images(self) -> int:
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        return 100 * int(self.confusion.trace()) / self.images

    @property
    def per_class(self) -> list[float | None]:
        """Top-1 accuracy in % within each true class; None for a class without images."""
        counts = self.confusion.sum(1).tolist()
        return [100 * int(self.confusion[i, i]) / n if n else None for i, n in enumerate(counts)]


@torch.no_grad()
def evaluate(model: nn.Module, images: Images, size: int | None = None, batch_size: int = 250, world: World | None = None,
             each: Callable[[int], object] = lambda done: None) -> Scores:
    """Scores of a network in evaluation mode; each process of a world takes its part of the images.

    Args:
        size: pixels a side that the network takes, where the images may be larger.
        each: called after every batch with the number of images done.
    """
    device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    world = world or World(0, 1, device)
    model.eval()
    classes = len(images.label_names)
    sums = torch.zeros(classes * classes + 2, dtype=torch.float64, device=device)
    start, done = time.perf_counter(), 0
    rows = torch.arange(len(images)).split(batch_size)
    for part in images.batches(map(world.part, rows)):
        y = part.y.to(device)
        logits = model(pixels(part.x.to(device), size)).float()
        place = y * classes + logits.argmax(1)
        sums[2:] += torch.bincount(place, minlength=classes * classes)
        sums[0] += F.cross_entropy(logits, y, reduction="sum")
        sums[1] += (logits.topk(min(5, classes), 1).indices == y[:, None]).any(1).sum()
        done = min(done + batch_size, len(images))
        each(done)
    loss, top5, *confusion = world.total(sums).tolist()
    seconds = time.perf_counter() - start
    return Scores(loss / len(images), 100 * top5 / len(images),
                  torch.tensor(confusion, dtype=torch.int64).view(classes, classes), seconds)


@torch.no_grad()
def evidence(model: SpikingNet, images: Images, size: int | None = None, batch_size: int = 250) -> np.ndarray:
    """Logits of every single time step for all images, ``[T, N, classes]``."""
    device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    parts = [model.forward_evidence(pixels(part.x.to(device), size)).float().cpu()
             for part in images.batches(torch.arange(len(images)).split(batch_size))]
    return torch.cat(parts, 1).numpy()


def _title(dataset: Dataset) -> str:
    return f"{dataset.title} test"


def test_images(config: Config, root: Path, dataset: str | None, time_steps: int) -> tuple[Images, str]:
    """The labelled images on which to measure a network, with its class names, and what they are.

    Args:
        dataset: of the catalog; "folder" for one's own pictures, whose classes are matched by name; None for the model's.
    Raises:
        UsageError: no such dataset, or one whose classes are not the network's. DataError: see :func:`load`.
    """
    own = config.model.dataset
    if dataset is None:
        if own is None or config.label_names != own.label_names:
            raise UsageError(f"{config.name} belongs to no dataset of the zoo: say --dataset {FOLDER} for your own pictures")
        dataset = own.name
    if dataset != FOLDER:
        if dataset not in DATASETS:
            raise UsageError(f"there is no dataset {dataset!r}: choose one of {', '.join(DATASETS)}, or {FOLDER}")
        images, title = load(DATASETS[dataset], root, "test", time_steps), _title(DATASETS[dataset])
        if len(images.label_names) != len(config.label_names):
            raise UsageError(f"{config.name} has {len(config.label_names)} classes, {DATASETS[dataset].title} has "
                             f"{len(images.label_names)}")
        return images, title
    train, valid = load_folder(root, *config.input_size[:2])
    images = train if valid is None else valid
    title = f"{root}" if valid is None else f"{root}, its validation split"
    if set(images.label_names) <= set(config.label_names):
        order = torch.tensor([config.label_names.index(name) for name in images.label_names])
        return replace(images, y=order[images.y], label_names=config.label_names), title
    if len(images.label_names) != len(config.label_names) or not images.label_names[0].startswith("class "):
        strange = next(name for name in images.label_names if name not in config.label_names)
        raise DataError(f"{root} holds a class {strange!r} that {config.name} does not know")
    return replace(images, label_names=config.label_names), title


def compare(located: Located, title: str, scores: Scores, time_steps: int) -> dict:
    """What was measured, and what the weights' own record says should be."""
    config, row = located.config, located.table
    facts = config.facts or {}
    expected, source = (row.top1, row.obtained) if row else (facts.get("top1"), facts.get("measured_on"))
    own = config.model.dataset and title == _title(config.model.dataset) and (row or source == TEST_SET)
    same = bool(own) and expected is not None and time_steps == config.options.get("time_steps")
    return {"model": config.name, "data": title, "images": scores.images, "time_steps": time_steps,
            "top1": round(scores.top1, 2), "top5": round(scores.top5, 2), "loss": round(scores.loss, 4),
            "expected_top1": expected if same else None, "expected_from": source if same else None,
            "difference": round(scores.top1 - expected, 2) if same else None,
            "images_per_s": round(scores.images / scores.seconds, 1)}
