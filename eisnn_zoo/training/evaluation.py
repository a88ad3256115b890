"""Measuring a network on images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .augment import pixels
from .data import Images
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
    for rows in torch.arange(len(images)).split(batch_size):
        part = images[world.part(rows)]
        y = part.y.to(device)
        logits = model(pixels(part.x.to(device), size)).float()
        place = y * classes + logits.argmax(1)
        sums[2:] += torch.bincount(place, minlength=classes * classes)
        sums[0] += F.cross_entropy(logits, y, reduction="sum")
        sums[1] += (logits.topk(min(5, classes), 1).indices == y[:, None]).any(1).sum()
        done += len(rows)
        each(done)
    loss, top5, *confusion = world.total(sums).tolist()
    seconds = time.perf_counter() - start
    return Scores(loss / len(images), 100 * top5 / len(images),
                  torch.tensor(confusion, dtype=torch.int64).view(classes, classes), seconds)
