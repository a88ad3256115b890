"""Pictures that stay in their files, read batch by batch in processes of their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import ZooError
from .folders import Pictures
from .stopping import SIGNALS, handled_by


@dataclass(frozen=True)
class Streamed(Pictures):
    """Files, as the tensor uint8 ``[N, C, size, size]`` that they make; indexing reads what is asked for."""

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        return torch.from_numpy(self.read(range(len(self.paths))[rows] if isinstance(rows, slice) else rows.tolist()))

    def take(self, rows: Tensor) -> Streamed:
        """These files alone, still unread."""
        return replace(self, paths=[self.paths[row] for row in rows.tolist()])

    def load(self) -> Tensor:
        """All of it."""
        out = torch.empty(self.shape, dtype=torch.uint8)
        parts = torch.arange(len(self.paths)).split(250)
        for rows, part in zip(parts, self.batches(parts) if len(parts) > 4 else map(self.__getitem__, parts)):
            out[rows] = part
        return out

    def batches(self, rows: Iterable[Tensor], needed: slice = slice(None)) -> Iterator[Tensor]:
        """Reads batch after batch, some batches ahead in processes of its own; what they hold does not depend on these."""
        lists = [r.tolist() for r in rows]
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = max(1, min(8, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), len(lists)))
        loader: DataLoader = DataLoader(_Reading(self, needed), batch_size=None, sampler=lists, num_workers=workers,
                                        worker_init_fn=_leave_signals_to_the_trainer)
        with handled_by(signal.SIG_IGN):  # readers that are not forked import torch for seconds before they can ignore them
            reading = iter(loader)
        for batch in reading:
            if isinstance(batch, ZooError):
                raise batch
            yield batch


@dataclass(frozen=True)
class _Reading(Dataset):
    pictures: Pictures
    needed: slice

    def __getitem__(self, rows: list[int]) -> Tensor | ZooError:
        try:
            return torch.from_numpy(self.pictures.read(rows, self.needed))
        except ZooError as error:  # raised here it would arrive as a traceback in words
            return error


def _leave_signals_to_the_trainer(_worker: int) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
