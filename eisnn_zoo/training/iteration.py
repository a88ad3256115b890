"""One iteration: the gradients of a batch and the step by them, in one process or among several."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..compiling import compile_options, prepare_compiler
from ..networks import SpikingNet
from .distillation import Teacher
from .graphs import Graphs, Plain
from .homeostasis import Homeostasis
from .optim import set_least_inhibition, set_rate
from .recipe import Recipe
from .setup import make_optimizer
from .world import World


class Batch(NamedTuple):
    """Ready for the network: this process's part of so many images; target: its classes y, or their mixture."""

    images: int
    x: Tensor
    target: Tensor
    y: Tensor


class Setting(NamedTuple):
    """What an iteration computes, but for the numbers in its tensors.

    Attributes:
        images: of the batch, in all processes; part: images that this one computes at a time; whole: not the rest of an epoch.
        time_steps, alpha: the network's; deflated, least_inhibition: the optimizer's; homeostasis: its rate.
    """

    images: int
    part: int
    whole: bool
    time_steps: int
    alpha: float
    deflated: bool
    least_inhibition: float
    homeostasis: float


class Iteration:
    """What moves a network by batches: optimizer, compiler, processes, CUDA graphs, averaged weights.

    Args:
        model: initialised, on the device of world.
        deflated: number of first iterations in which Muon is deflated.
        compile: torch.compile the network.
        teacher: whose answers it learns beside the classes, if any.
    """

    def __init__(self, recipe: Recipe, model: SpikingNet, world: World, deflated: int, compile: bool, teacher: Teacher | None = None):
        self.recipe, self.model, self.world, self.deflated, self.teacher = recipe, model, world, deflated, teacher
        self.homeostasis = None
        if recipe.homeostasis:
            rate = recipe.at("homeostasis", 0)
            self.homeostasis = Homeostasis(model, rate, world, trained=bool(recipe.weights) or not rate)
        self.parallel: nn.Module = model
        if world.size > 1:  # sends the first process's weights to the others
            self.parallel = DistributedDataParallel(model)
        if compile:
            prepare_compiler()
        self.network = torch.compile(self.parallel, **compile_options(world.device.type)) if compile else self.parallel
        self.optimizer = make_optimizer(recipe, model, deflated)
        self.average: AveragedModel | None = None
        if recipe.ema:
            self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)
        self.plain = Plain(self._gradients, self._descend)
        self.graphs = Graphs(self.plain, model.parameters()) if Graphs.possible(world) else None
        self.work: Plain | Graphs = self.plain

    def gradients(self, batch: Batch, step: int, epoch: int, lr: float) -> Tensor:
        """Gradients of the mean loss of a batch, as the recipe has it in this epoch.

        Returns:
            On the device, for which nothing has waited: the sum of this process's losses, its right answers, and the norm of the
            whole gradient.
        """
        recipe = self.recipe
        set_rate(self.optimizer, lr)
        least = recipe.at("least_inhibition", epoch)
        set_least_inhibition(self.optimizer, least)
        rate = recipe.at("homeostasis", epoch)
        if self.homeostasis:
            self.homeostasis.rate = rate
        setting = Setting(batch.images, recipe.part_size(epoch, self.world.size), batch.images == recipe.at("batch_size", epoch),
                          self.model.time_steps, recipe.at("alpha", epoch), step < self.deflated, least, rate)
        self.work = self.graphs if self.graphs and setting.whole else self.plain
        return self.work.gradients(setting, batch.x, batch.target, batch.y)

    def descend(self) -> None:
        """The step by these gradients."""
        self.work.step()
        if self.average:
            self.average.update_parameters(self.model)

    def autocast(self):
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16")

    @contextlib.contextmanager
    def stream(self) -> Iterator[None]:
        """Graphs are recorded on a stream of their own, on which all that they need was computed."""
        if not self.graphs:
            yield
            return
        stream = torch.cuda.Stream(self.world.device)
        stream.wait_stream(torch.cuda.current_stream(self.world.device))
        try:
            with torch.cuda.stream(stream):
                yield
        finally:
            stream.synchronize()
            self.graphs.forget()

    def _gradients(self, setting: Setting, x: Tensor, target: Tensor, y: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        parts = list(zip(*(t.split(setting.part) for t in (x, target, y))))
        sums = torch.zeros(2, device=self.world.device)
        for i, (part_x, part_target, part_y) in enumerate(parts):
            full = setting.whole or len(part_x) == setting.part  # no compilation for the rest of an epoch
            waits = isinstance(self.parallel, DistributedDataParallel) and i + 1 < len(parts)
            with self.parallel.no_sync() if waits else contextlib.nullcontext():  # gradients meet after the last part
                with self.autocast():
                    logits = (self.network if full else self.parallel)(part_x).float()
                loss = F.cross_entropy(logits, part_target, label_smoothing=self.recipe.label_smoothing, reduction="sum")
                if self.teacher:
                    with self.autocast():
                        loss = loss.lerp(self.teacher.distance(logits, part_x, full), self.recipe.distillation)
                (loss * (self.world.size / setting.images)).backward()  # processes are averaged
            sums += torch.stack([loss.detach(), (logits.argmax(1) == part_y).sum()])
        self.norm = get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        return torch.cat([sums, self.norm[None]])

    def _descend(self) -> None:
        if self.recipe.clip_grad:
            clip_grads_with_norm_(self.model.parameters(), self.recipe.clip_grad, self.norm)
        if self.homeostasis:
            self.homeostasis.step(self.optimizer)
        else:
            self.optimizer.step()
