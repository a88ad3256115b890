"""Data for training and evaluation, from local folders.

Sets of up to WHOLE bytes, as uint8, live whole on the device. Of larger ones arrays stay in memory and travel by batches,
and pictures stay in their files, read some batches ahead by processes of their own. A run computes the same either way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..catalog import DATASETS, MODELS
from ..errors import UsageError
from .folders import Pictures
from .reading import FOLDER, TEST_SET, DataError, Labelled, read, read_folder
from .recipe import Recipe
from .streaming import Streamed

WHOLE = 4 * 2**30


@dataclass(frozen=True)
class Images:
    """x: uint8 ``[N, C, H, W]``, or event counts ``[N, T, C, H, W]``; y: int64 ``[N]``; label_names: one per class."""

    x: Tensor | Streamed
    y: Tensor
    label_names: tuple[str, ...] = ()

    @classmethod
    def of(cls, labelled: Labelled) -> Images:
        """As tensors; pictures are read now where they fit into memory."""
        x, y = labelled.x, torch.from_numpy(labelled.y)
        if isinstance(x, Pictures):
            streamed = Streamed(**vars(x))
            return cls(streamed.load() if x.nbytes <= WHOLE else streamed, y, labelled.label_names)
        return cls(torch.from_numpy(x), y, labelled.label_names)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def streams(self) -> bool:
        """Whether the images are still in their files."""
        return isinstance(self.x, Streamed)

    def to(self, device: torch.device) -> Images:
        """All of it on device, where that is sensible: larger sets stay where they are and travel by batches."""
        if isinstance(self.x, Streamed) or self.x.nbytes > WHOLE:
            return self
        return replace(self, x=self.x.to(device), y=self.y.to(device))

    def __getitem__(self, rows: Tensor) -> Images:
        rows = rows.to(self.y.device, non_blocking=True)
        return replace(self, x=self.x[rows], y=self.y[rows])

    def take(self, rows: Tensor) -> Images:
        """These rows alone; pictures that are still in their files stay there."""
        if isinstance(self.x, Streamed):
            return replace(self, x=self.x.take(rows), y=self.y[rows])
        return self[rows]

    def batches(self, rows: Iterable[Tensor], needed: slice = slice(None)) -> Iterator[Images]:
        """Batch after batch of these rows, ``self[r] for r in rows``.

        Args:
            needed: of each batch; images that are still in their files may be left black elsewhere.
        """
        if not isinstance(self.x, Streamed):
            yield from (self[r] for r in rows)
            return
        rows = list(rows)
        for r, x in zip(rows, self.x.batches(rows, needed)):
            yield replace(self, x=x, y=self.y[r])


@dataclass(frozen=True)
class Data:
    """What a run trains on and is judged by.

    Attributes:
        size: pixels a side that the network sees where the recipe names none.
        validation: what valid is, in words.
        held_out: training images that valid was made of; 0: it is a split of its own.
        identity: by which a run knows its data again.
    """

    train: Images
    valid: Images
    size: int
    validation: str
    held_out: int = 0
    identity: str = ""

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.train.label_names

    def to(self, device: torch.device) -> Data:
        """On device, as far as :meth:`Images.to` finds sensible."""
        return replace(self, train=self.train.to(device), valid=self.valid.to(device))


def load_data(recipe: Recipe, root: str | Path) -> Data:
    """Training and validation images of a recipe.

    Without ``holdout`` validation is on the test set, as the paper's release does it; a folder of one's own that holds no
    second split has a tenth of its images set aside.

    Raises:
        DataError: see :func:`~eisnn_zoo.training.reading.read`. UsageError: a model or a holdout that they are not for.
    """
    model = MODELS[recipe.model]
    if recipe.dataset == FOLDER:
        if model.event_input:
            raise UsageError(f"{model.name} takes frames of events, not pictures: choose another model")
        channels, size = model.input_size[0], recipe.side(recipe.epochs - 1, model.input_size[1])
        rows, others = read_folder(root, channels, size)
        n = recipe.holdout or (0 if others is not None else max(1, len(rows) // 10))
        said = "its own validation split"
    else:
        dataset = DATASETS[recipe.dataset]
        size, n, said = dataset.size, recipe.holdout, TEST_SET
        rows = read(dataset, root, "train", recipe.final_steps)
        others = None if n else read(dataset, root, "test", recipe.final_steps)
    if n >= len(rows):
        said = f"{root}: {n} of its {len(rows)} training images cannot be set aside for validation"
        if recipe.holdout:
            raise UsageError(f"{said}: lower holdout")
        raise DataError(f"{said}: give more, or a folder val/ beside train/")
    if n or others is None:
        train, valid = hold_out(Images.of(rows), n, recipe.seed, keep_classes=recipe.dataset == FOLDER)
        return Data(train, valid, size, f"{n} training images held out", n, rows.identity)
    return Data(Images.of(rows), Images.of(others), size, said, identity=f"{rows.identity} {others.identity}")


def hold_out(images: Images, n: int, seed: int, keep_classes: bool = False) -> tuple[Images, Images]:
    """(the rest, n images set aside), by a seeded permutation; keep_classes: a class's last image only where there are no others."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    if keep_classes:
        last = torch.zeros(len(order), dtype=torch.bool)
        last[len(order) - 1 - np.unique(images.y[order].flip(0).cpu().numpy(), return_index=True)[1]] = True
        order = torch.cat([order[~last], order[last]])
    return images.take(order[n:]), images.take(order[:n])
