"""From rows of the training images to batches that are ready for the network: augmented, mixed, and this process's part of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from .augment import AUGMENTATIONS, pixels
from .data import Data, Images
from .iteration import Batch
from .recipe import Recipe
from .world import World


class Feeding:
    """Makes the batches of a run. What is random in iteration i is seeded by (seed, i), in every process alike.

    Args:
        data: whose training images they are made of.
    """

    def __init__(self, recipe: Recipe, data: Data, world: World):
        self.recipe, self.data, self.world = recipe, data, world

    def batches(self, rows: Iterable[Tensor], epoch: int, first: int) -> Iterator[Batch]:
        """Batch after batch of these rows, from iteration first on."""
        mixes = self.recipe.mixup or self.recipe.cutmix  # images of this process with those of others
        for step, images in enumerate(self.data.train.batches(rows, slice(None) if mixes else self.world.rows), first):
            yield self.batch(images, epoch, step)

    def batch(self, images: Images, epoch: int, step: int) -> Batch:
        """This process's part of the batch of an iteration."""
        recipe = self.recipe
        side = recipe.side(epoch, self.data.size)
        rng = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        torch.manual_seed(recipe.seed * 1_000_033 + step)  # mixtures, dropout
        x, y = images.x.to(self.world.device), images.y.to(self.world.device)
        augment = AUGMENTATIONS[recipe.at("augment", epoch)]
        x, target = pixels(augment(x, rng, side), side), y
        if recipe.mixup or recipe.cutmix:
            x, target = self._mixture(x, y)
        part = self.world.part
        return Batch(len(images), part(x), part(target), part(y))

    def _mixture(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        from torchvision.transforms import v2

        classes = len(self.data.label_names)
        kinds = [kind(alpha=alpha, num_classes=classes)
                 for kind, alpha in ((v2.MixUp, self.recipe.mixup), (v2.CutMix, self.recipe.cutmix)) if alpha]
        return v2.RandomChoice(kinds)(x, y)
