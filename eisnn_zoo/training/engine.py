"""The training loop.

All randomness of iteration i comes from generators seeded by (seed, epoch) or (seed, i), so no random state needs saving:
a run that was interrupted anywhere goes on from its checkpoint to the same weights, bit for bit, on the same device.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..catalog import MODELS
from ..ei import EILayer, EISynapses
from ..initialize import initialize
from ..networks import build
from .augment import AUGMENTATIONS
from .data import Images, hold_out, load
from .optim import EIMuon, ProjectedSGD
from .recipe import Recipe
from .run import Run, environment

log = logging.getLogger("eisnn_zoo.training")
INIT_BATCH = 128


def keep_memory() -> None:
    """Keeps glibc from giving large blocks back: faulting activations in again costs half of a CPU training step."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
            libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def faster_precision(device: torch.device) -> str:
    """bf16 where this device multiplies matrices faster in it: measured, since a processor without it is far slower."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    seconds = {}
    for kind in (torch.float32, torch.bfloat16):
        a = torch.ones(512, 512, dtype=kind)
        a @ a
        start = time.perf_counter()
        for _ in range(4):
            a @ a
        seconds[kind] = time.perf_counter() - start
    return "bf16" if seconds[torch.bfloat16] < 0.8 * seconds[torch.float32] else "fp32"


def warmup_cosine(step: int, total: int, warmup: int, peak: float, start: float) -> float:
    """Linear from start to peak over the warm-up iterations, then cosine to 0."""
    if step < warmup:
        return start + (peak - start) * step / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def make_model(recipe: Recipe, first: Tensor) -> nn.Module:
    """The recipe's network, initialised on its first training images (pixels, float)."""
    torch.manual_seed(recipe.seed)
    model = build(recipe.model)
    for module in model.modules():
        if isinstance(module, EISynapses):
            module.scale_w_ei_gradient = recipe.scale_w_ei_gradient
        if isinstance(module, EILayer):
            module.stabilisation = recipe.stabilisation
    if recipe.init == "ei":
        initialize(model, first, recipe.seed)
    else:
        for module in model.modules():
            if isinstance(module, EISynapses):  # torch's default for a layer, its sign dropped: Dale's law and no more
                for synapses in (module.ee, module.ie, module.ei):
                    nn.init.kaiming_uniform_(synapses.weight.data, a=math.sqrt(5)).abs_()
            if isinstance(module, EILayer):
                nn.init.ones_(module.g_i)
        if model.kind == "ei":
            model.mark_initialised()
    return model


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    if recipe.optimizer == "muon":
        return EIMuon(model, lr=recipe.lr, momentum=recipe.momentum)
    return ProjectedSGD(model, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)


def pixels(x: Tensor) -> Tensor:
    """uint8 in 0..255 to float in [0, 1], channels last; event counts stay counts."""
    if x.dtype != torch.uint8 or x.dim() == 5:
        return x.float()
    return (x.float() / 255).contiguous(memory_format=torch.channels_last)


def batches(n: int, size: int, seed: int, epoch: int, skip: int = 0) -> Iterator[Tensor]:
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed * 100_003 + epoch))
    yield from order.split(size)[skip:]


@torch.no_grad()
def evaluate(model: nn.Module, images: Images, batch_size: int = 250) -> tuple[float, float]:
    """(mean cross-entropy, top-1 accuracy in %)."""
    model.eval()
    loss, right = 0.0, 0
    for start in range(0, len(images), batch_size):
        y = images.y[start : start + batch_size]
        logits = model(pixels(images.x[start : start + batch_size])).float()
        loss += F.cross_entropy(logits, y, reduction="sum").item()
        right += (logits.argmax(1) == y).sum().item()
    return loss / len(images), 100 * right / len(images)


class Training:
    """One run of a recipe.

    Args:
        recipe: what to train.
        data: folder of the data.
        output: the run folder; a checkpoint in it is gone on from.
        device: "cpu", "cuda", ...
        compile: torch.compile the training step's network.
    """

    def __init__(self, recipe: Recipe, data: str | Path, output: str | Path, device: str = "cpu", compile: bool = True):
        keep_memory()
        self.recipe, self.device = recipe, torch.device(device)
        dataset = MODELS[recipe.model].dataset
        train = load(dataset, data, "train")
        if recipe.holdout:
            self.train, self.valid = (part.to(self.device) for part in hold_out(train, recipe.holdout, recipe.seed))
        else:
            self.train, self.valid = train.to(self.device), load(dataset, data, "test").to(self.device)
        self.precision = faster_precision(self.device) if recipe.precision == "auto" else recipe.precision
        self.run = Run(output)
        first = pixels(self.train.x[next(batches(len(self.train), INIT_BATCH, recipe.seed, 0)).to(self.device)])
        self.model = make_model(recipe, first.cpu()).to(self.device)
        self.compiled = torch.compile(self.model, dynamic=False) if compile else self.model
        self.optimizer = make_optimizer(recipe, self.model)
        self.per_epoch = math.ceil(len(self.train) / recipe.batch_size)
        self.step, self.best = self.run.load_checkpoint(self.model, self.optimizer)
        if not self.step:
            self.run.start(recipe, {**environment(self.device, self.precision), "train_images": len(self.train),
                                    "validation": "held out" if recipe.holdout else "test set"})

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def fit(self, save_every: float = 300.0) -> None:
        """Trains to the recipe's last epoch; a checkpoint after every epoch and every save_every seconds."""
        saved = time.monotonic()
        for epoch in range(self.step // self.per_epoch, self.recipe.epochs):
            steps = self.recipe.steps_at(epoch)
            self.model.time_steps = steps
            start, seen, total, right = time.monotonic(), 0, 0.0, 0.0
            self.model.train()
            for rows in batches(len(self.train), self.recipe.batch_size, self.recipe.seed, epoch, self.step % self.per_epoch):
                loss, correct = self._iteration(self.train[rows.to(self.device)])
                seen, total, right = seen + len(rows), total + loss * len(rows), right + correct
                if time.monotonic() - saved > save_every:
                    self.run.save_checkpoint(self.model, self.optimizer, self.step, self.best)
                    saved = time.monotonic()
            seconds = time.monotonic() - start
            with self.autocast():
                valid_loss, valid_top1 = evaluate(self.model, self.valid)
            self.run.record({"epoch": epoch + 1, "time_steps": steps, "lr": f"{self.lr(self.step - 1):.3g}", "train_loss": round(total / seen, 4),
                             "train_top1": round(100 * right / seen, 2), "valid_loss": round(valid_loss, 4),
                             "valid_top1": round(valid_top1, 2), "images_per_s": round(seen / seconds, 1), "seconds": round(seconds, 1)})
            log.info("%s", self.run.history[-1])
            if steps == self.recipe.steps_at(self.recipe.epochs - 1) and valid_top1 > self.best:
                self.best = valid_top1
                self.run.save_weights(self.model, "best", {})
            self.run.save_checkpoint(self.model, self.optimizer, self.step, self.best)
        self.run.save_weights(self.model, "last", {})

    def lr(self, step: int) -> float:
        r = self.recipe
        return warmup_cosine(step, r.epochs * self.per_epoch, round(r.warmup_epochs * self.per_epoch), r.lr, r.warmup_lr)

    def _iteration(self, batch: Images) -> tuple[float, float]:
        rng = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.step)
        torch.manual_seed(self.recipe.seed * 1_000_033 + self.step)  # dropout
        x = pixels(AUGMENTATIONS[self.recipe.augment](batch.x, rng))
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr(self.step)
        network = self.compiled if len(batch) == self.recipe.batch_size else self.model  # no compilation for one last batch
        with self.autocast():
            logits = network(x).float()
        loss = F.cross_entropy(logits, batch.y, label_smoothing=self.recipe.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        if self.recipe.clip_grad:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_grad)
        self.optimizer.step()
        self.step += 1
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value} at iteration {self.step}; the last good checkpoint is "
                                     f"{self.run.folder / 'checkpoint.safetensors'}")
        return value, (logits.argmax(1) == batch.y).sum().item()
