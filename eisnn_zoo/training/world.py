"""The processes that train together: those that torchrun started, or this one alone."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import UsageError


@dataclass(frozen=True)
class World:
    """rank: 0 writes the files; size: number of processes; device: this process's own."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def join(cls, device: str) -> World:
        """With torchrun's environment variables set, waits for the others: NCCL on GPUs, gloo on CPUs. Raises UsageError where they are
        not as torchrun sets them."""
        chosen = torch.device(device)
        try:
            size = int(os.environ.get("WORLD_SIZE", "1"))
            if size == 1:
                return cls(0, 1, chosen)
            if chosen.type == "cuda":
                chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
                torch.cuda.set_device(chosen)
            if not dist.is_initialized():
                dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        except ValueError as error:
            raise UsageError(f"the environment names other processes, and not as torchrun does ({error}): start them by torchrun, or "
                             "unset WORLD_SIZE") from error
        return cls(dist.get_rank(), size, chosen)

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def rows(self) -> slice:
        """This process's part of a batch."""
        return slice(self.rank, None, self.size)

    def part(self, x: Tensor) -> Tensor:
        """This process's rows of a batch that all of them know."""
        return x[self.rows]

    def total(self, values: Tensor) -> Tensor:
        """Sum over the processes, in float64."""
        values = values.to(self.device, torch.float64)
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def share(self, tensors: Iterable[Tensor]) -> None:
        """All processes take those of the first, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def wait(self) -> None:
        if self.size > 1:
            dist.barrier()

    def leave(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()
