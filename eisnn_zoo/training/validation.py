"""Measuring a network while it trains: on the device it lives on, each process its part of the images."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

from ..evaluating import evaluating
from .augment import pixels
from .data import Images
from .evaluation import Scores, no_tally, tally
from .world import World


@torch.no_grad()
def validate(model: nn.Module, images: Images, size: int, batch_size: int, world: World,
             each: Callable[[int], object] = lambda done: None) -> Scores:
    """As :func:`~eisnn_zoo.training.evaluation.evaluate`, of a network in torch, in evaluation mode.

    Args:
        each: told how many images are done, after every batch.
    """
    sums = no_tally(len(images.label_names))
    start, done = time.perf_counter(), 0
    rows = torch.arange(len(images)).split(batch_size)
    with evaluating(model):
        for part in images.batches(map(world.part, rows)):
            logits = model(pixels(part.x.to(world.device), size)).float().cpu().numpy()
            sums += tally(logits, part.y.cpu().numpy())
            done = min(done + batch_size, len(images))
            each(done)
    sums = world.total(torch.from_numpy(sums)).cpu().numpy()
    return Scores.of(sums, time.perf_counter() - start)
