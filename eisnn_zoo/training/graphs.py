"""Iterations as CUDA graphs: one launch for the gradients and one for the step, where launching a thousand kernels takes longer
than running them. ``EISNN_ZOO_GRAPHS=0`` switches them off."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable

import torch
from torch import Tensor, nn

from .report import log
from .world import World

WARM = 3  # iterations run as they are: they compile, and make the optimizer's state


class Plain:
    """The two halves of an iteration, run as they are.

    Args:
        gradients: of a setting and the tensors of a batch; sets the parameters' gradients and returns a tensor of results.
        step: moves the parameters by their gradients.
    """

    def __init__(self, gradients: Callable[..., Tensor], step: Callable[[], None]):
        self.gradients, self.step = gradients, step


class Graphs:
    """The two halves of plain, recorded once for a setting and replayed from then on.

    What they do may depend on the setting, which is hashable, and on numbers in tensors, and on nothing else; and it may read no
    number from the GPU. Where recording fails they go on being run as they are, and the log says so. To be used on one stream,
    which is not the device's default.
    """

    def __init__(self, plain: Plain, parameters: Iterable[nn.Parameter]):
        self.plain, self.parameters = plain, list(parameters)
        self.key: Hashable = None
        self.failed = False
        self.forget()

    @staticmethod
    def possible(world: World) -> bool:
        """On a GPU, in a process that trains alone."""
        return world.device.type == "cuda" and world.size == 1 and os.environ.get("EISNN_ZOO_GRAPHS") != "0"

    def forget(self) -> None:
        """Gives their memory back: a recording holds what one iteration needs, also between replays."""
        self.warm = 0
        self.recorded: tuple[torch.cuda.CUDAGraph, ...] = ()
        self.inputs: list[Tensor] = []
        self.held: list[Tensor | None] = []  # the gradients that both graphs know

    def gradients(self, setting: Hashable, *inputs: Tensor) -> Tensor:
        key = setting, *(x.shape for x in inputs)
        if key != self.key:
            self.forget()
            self.key = key
        if not self.recorded and not self.failed and self.warm == WARM:
            self._record(setting, inputs)
        if not self.recorded:
            self.warm = min(self.warm + 1, WARM)
            return self.plain.gradients(setting, *inputs)
        for held, x in zip(self.inputs, inputs):
            held.copy_(x)
        for p, gradient in zip(self.parameters, self.held):  # which the rest of an epoch, run as it is, has replaced
            p.grad = gradient
        self.recorded[0].replay()
        return self.results

    def step(self) -> None:
        if self.recorded:
            self.recorded[1].replay()
        else:
            self.plain.step()

    def _record(self, setting: Hashable, inputs: tuple[Tensor, ...]) -> None:
        try:
            graphs, stream = (torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()), torch.cuda.current_stream()
            self.inputs = [x.clone() for x in inputs]
            with torch.cuda.graph(graphs[0], stream=stream):
                self.results = self.plain.gradients(setting, *self.inputs)
            self.held = [p.grad for p in self.parameters]
            with torch.cuda.graph(graphs[1], pool=graphs[0].pool(), stream=stream):
                self.plain.step()
        except RuntimeError as error:  # something that cannot be recorded: it runs all the same
            log.info("iterations are not recorded as CUDA graphs: %s", error)
            self.forget()
            self.failed = True
            return
        self.recorded = graphs
