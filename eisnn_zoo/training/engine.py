"""The training loop.

All randomness of iteration i comes from generators seeded by (seed, epoch) or (seed, i), so no random state needs saving:
a run that was interrupted anywhere goes on from its checkpoint to the same weights, bit for bit, on the same device. A batch
is drawn and augmented the same way in every process, which then computes its own part of it: any number of processes sees
the same batches.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ..catalog import MODELS
from ..compiling import can_compile, check_compiler, compile_failure
from ..config import Config, as_tag
from ..errors import ZooError
from ..files import sha256
from ..machine import peak_memory
from ..networks import SpikingNet
from ..precision import strict_arithmetic
from . import provenance, report, setup
from .augment import pixels
from .data import TEST_SET, load_data
from .diagnose import first_overflow
from .distillation import Teacher
from .evaluation import Scores
from .feeding import Feeding
from .graphs import Graphs
from .iteration import Batch, Iteration
from .recipe import Recipe
from .run import Run, environment
from .schedule import Schedule, batches
from .stopping import Stopped, signals
from .validation import validate
from .world import World

APART = 5.0  # seconds, at least, between the checkpoints that follow epochs: on a GPU an epoch can take one, and saving it a part of one
INIT_BATCH = 128  # images, as they are, that E-I Init sees: enough to show the statistics, whatever batch_size and augment are
VALIDATED = 250  # images at a time, on a CPU


class Sums(NamedTuple):
    """Over the images that an epoch has seen: their number, their loss, right ones among them, and seconds of training."""

    images: int = 0
    loss: float = 0.0
    right: int = 0
    seconds: float = 0.0


class Diverged(ZooError):
    """A loss or gradient that is not finite."""


class Training:
    """One run of a recipe.

    Args:
        recipe: what to train.
        data: folder of the data.
        output: the run folder; a checkpoint in it is gone on from.
        device: "cpu", "cuda", ...
        compile: torch.compile the training step's network; None: where that works, unless fused kernels in CUDA graphs are as fast.
        report_to: names of :data:`~eisnn_zoo.training.report.TRACKERS`.

    Raises:
        ZooError: data, run folder or checkpoint that cannot be used; see the modules of the parts.
    """

    def __init__(self, recipe: Recipe, data: str | Path, output: str | Path, device: str = "cpu", compile: bool | None = None,
                 report_to: Sequence[str] = ()):
        report.check_trackers(report_to)
        setup.keep_memory()
        setup.flush_denormals()
        strict_arithmetic()
        self.run, self.world = Run(output), World.join(device)
        self.device = self.world.device
        if compile:
            check_compiler(self.device.type)
        trained = provenance.trained_weights(recipe)
        self.recipe = recipe = self._decide_precision(recipe)
        self.data = load_data(recipe, data).to(self.device)
        setup.check_parts(recipe, len(self.data.train), self.world.size)
        self.schedule = Schedule(recipe, len(self.data.train))
        rows = next(batches(len(self.data.train), INIT_BATCH, recipe.seed, 0))
        self.side = self.size = recipe.side(recipe.epochs - 1, self.data.size)
        first = pixels(self.data.train[rows].x.cpu(), self.size)
        known = provenance.who_knows_held_out(recipe, self.data, trained)
        self.doubts, self.knows_held_out = recipe.doubts + provenance.doubts(recipe, known), bool(known)
        self.model = setup.make_model(recipe, self.data, first, self.world.first, trained.get("weights")).to(self.device)
        if compile is None:
            fused = Graphs.possible(self.world) and setup.fused_throughout(recipe, self.device)
            compile = can_compile(self.device.type) and not fused
            if compile and (reason := compile_failure(self.device.type)):
                self.doubts.append(f"torch.compile does not work here, training goes without it, slower ({reason})")
                compile = False
        deflated = self.schedule.iterations(recipe.deflate_epochs)
        self.feeding = Feeding(recipe, self.data, self.world)
        teacher = Teacher(recipe, trained["teacher"], self.data, self.device, compile) if "teacher" in trained else None
        self.iteration = Iteration(recipe, self.model, self.world, deflated, compile, teacher)
        if self.world.first:
            digests = {f"{key}_sha256": sha256(located.path) for key, located in trained.items()}
            self.environment = environment(self.device)
            self.run.start(recipe, {**self.environment, "data": str(Path(data).resolve()), "device": device,
                                    "compile": compile, "report_to": list(report_to), "train_images": len(self.data.train),
                                    "validation": self.data.validation, "valid_images": len(self.data.valid),
                                    "data_identity": self.data.identity, "knows_held_out": self.knows_held_out, **digests})
        self.world.wait()
        progress = self.run.load_checkpoint(self._parts, self.iteration.optimizer) or {}
        self.step, self.best = progress.get("step", 0), progress.get("best", -1.0)
        self.best_loss = progress.get("best_loss", 0.0)  # of equally accurate epochs the surer one is better
        if self.run.epoch_of("best") > len(self.run.history):  # of epochs that were lost, and may not come again
            self.best = -1.0
        self.epoch = min(len(self.run.history), recipe.epochs - 1)
        self.sums = Sums(*progress.get("epoch", ()))
        self.hooks = [report.tracker(name, self.run, recipe) for name in report_to] if self.world.first else []
        self.memory: int | None = None  # bytes that fit held at most, where it had something to do
        self.asked = self.stop = False  # this process was asked to stop; all processes know of one that was

    def _decide_precision(self, recipe: Recipe) -> Recipe:
        """Measured where the recipe leaves it open, by the first process; what a run began with, it keeps."""
        if recipe.precision != "auto":
            return recipe
        begun = (self.run.folder / "recipe.yaml").is_file()
        precision = self.run.recipe.precision if begun else setup.faster_precision(self.device)
        chosen = self.world.total(torch.tensor([precision == "bf16" and self.world.first]))
        return recipe.model_copy(update={"precision": "bf16" if chosen.item() else "fp32"})

    @property
    def _parts(self) -> dict[str, nn.Module]:
        average = self.iteration.average
        return {"model": self.model} | ({"average": average} if average else {})

    @property
    def judged(self) -> SpikingNet:
        """The network that is evaluated and saved: the averaged one where there is one."""
        return cast(SpikingNet, self.iteration.average.module) if self.iteration.average else self.model

    # ---- the run -----------------------------------------------------------------------------------------------------

    def fit(self, save_every: float = 300.0) -> None:
        """Trains to the recipe's last epoch; a checkpoint every save_every seconds, and after every epoch that ends :data:`APART`
        seconds after the one before.

        Raises:
            Stopped: SIGINT, SIGTERM or SIGHUP came. Diverged: the loss or a gradient is not finite. ZooError: a file cannot be written.
            UsageError: another process trains in the run folder.
        """
        total, begun = self.schedule.starts[-1], self.step
        with contextlib.ExitStack() as stack:
            if self.world.first:
                stack.enter_context(self.run.alone())
                stack.enter_context(report.logging_to(self.run.log))
            stack.enter_context(signals(self._ask))
            stack.enter_context(self.iteration.stream())
            bar = report.Bar(total, self.step, self.world.first)
            stack.callback(bar.close)
            if self.step:
                report.log.info("going on from iteration %d of %d", self.step, total)
            self.saved = self.drawn = time.monotonic()
            while not self.finished:
                epoch = len(self.run.history)
                self._epoch(epoch, bar, save_every)
                self._finish_epoch(epoch, bar, min(save_every, APART))
            if self.step > begun:
                self.memory = peak_memory(str(self.device))
            if self.reached and self.world.first:
                text = f"validation top-1 of {self.recipe.stop_at:g} % reached in epoch {len(self.run.history)}"
                report.log.info("%s", text)
                bar.say(text)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train. Once the accuracy to stop at is reached, an epoch that was begun still is."""
        return len(self.run.history) >= self.recipe.epochs or (self.reached and not self.sums.images)

    @property
    def reached(self) -> bool:
        """Whether the accuracy the recipe stops at was reached, with the time steps of its last epoch."""
        return self.recipe.reached(self.best)

    def _epoch(self, epoch: int, bar: report.Bar, save_every: float) -> None:
        recipe, self.epoch = self.recipe, epoch
        self.model.time_steps = self.judged.time_steps = recipe.at("time_steps", epoch)
        self.side = recipe.side(epoch, self.data.size)
        setup.set_slope(self.model, recipe.at("alpha", epoch))
        self.model.train()
        if recipe.freeze:
            self.model.stages.eval()
        rows = batches(len(self.data.train), recipe.at("batch_size", epoch), recipe.seed, epoch, self.step - self.schedule.starts[epoch])
        start = time.monotonic()
        batches_ahead = self.feeding.batches(rows, epoch, self.step)
        batch = next(batches_ahead, None)
        while batch:
            images = batch.images
            loss, right, batch = self._iteration(batch, batches_ahead)
            sums = self.sums
            seen, seconds = sums.images + images, sums.seconds + time.monotonic() - start
            self.sums = sums = Sums(seen, sums.loss + loss * images, sums.right + right, seconds)
            bar.update(self.step, f"epoch {epoch + 1}/{recipe.epochs}  loss {sums.loss / seen:.3f}  "
                                  f"top-1 {100 * sums.right / seen:.1f} %  {seen / seconds:.0f} images/s")
            if self.stop:
                self._save()
                raise self._stopped()
            if time.monotonic() - self.saved >= save_every:
                self._save()
            start = time.monotonic()

    def _finish_epoch(self, epoch: int, bar: report.Bar, apart: float) -> None:
        due = time.monotonic() - self.saved >= apart
        if due:
            self._save()  # evaluation can be interrupted too

        def each(done: int) -> None:
            bar.update(self.step, f"epoch {epoch + 1}/{self.recipe.epochs}  evaluated {done}/{len(self.data.valid)}")
            if self.asked:
                self._save()
                raise self._stopped()

        scores = self.evaluate(each)
        seen, loss, right, seconds = self.sums
        steps = self.model.time_steps
        row = {"epoch": epoch + 1, "time_steps": steps, "resolution": self.side, "lr": float(f"{self.schedule.lr(self.step - 1):.3g}"),
               "train_loss": round(loss / seen, 4), "train_top1": round(100 * right / seen, 2),
               "valid_loss": round(scores.loss, 4), "valid_top1": round(scores.top1, 2),
               "images_per_s": round(seen / seconds, 1), "seconds": round(seconds, 1)}
        self.sums = Sums()
        best = self.recipe.comparable(epoch) and (scores.top1, -scores.loss) > (self.best, -self.best_loss)
        if best:
            self.best, self.best_loss = scores.top1, scores.loss
        ends = epoch + 1 == self.recipe.epochs or self.reached
        if self.world.first:
            for name, wanted in (("best", best), ("last", due or ends)):
                if wanted:
                    self.run.save_weights(name, self.judged, self.config(epoch + 1, scores.top1))
            self.run.record(row)
            if time.monotonic() - self.drawn > 60 or ends:
                self._draw()
            for hook in self.hooks:
                hook(row, self.step)
        else:
            self.run.history.append(row)
        if due or ends:
            self._save()
        text = (f"epoch {row['epoch']:>3}  T {steps}  loss {row['train_loss']:.4f}  top-1 {row['train_top1']:.2f} %  "
                f"validation {row['valid_loss']:.4f}  {row['valid_top1']:.2f} %  {row['images_per_s']:.0f} images/s")
        report.log.info("%s", text)
        if self.world.first:
            bar.say(text)

    def evaluate(self, each=lambda done: None) -> Scores:
        """Scores of the judged network on the validation images."""
        self.world.share(self.judged.buffers())  # BatchNorm's statistics are each process's own; those of the first are saved
        on_gpu = self.device.type == "cuda"  # which waits for launches: as many images as should fit where a part of a batch trains
        at_once = 4 * self.recipe.part_size(self.epoch, 1) if on_gpu else VALIDATED
        with self.iteration.autocast():
            return validate(self.judged, self.data.valid, self.side, at_once, self.world, each)

    def config(self, epoch: int, top1: float) -> Config:
        """What a weight file of this run says about itself."""
        options = {**self.model.config, "time_steps": self.recipe.final_steps}
        facts = {"recipe_sha256": self.recipe.sha256, "seed": self.recipe.seed, "epoch": epoch, "epochs": self.recipe.epochs,
                 "dataset": self.recipe.dataset}
        if self.data.held_out:
            facts |= {"held_out": self.data.held_out, "data_identity": self.data.identity, "knows_held_out": self.knows_held_out}
        if self.recipe.comparable(epoch - 1):  # else it was measured with another T, or on other pixels, than it is run with
            facts |= {"top1": round(top1, 2), "measured_on": self.data.validation}
            if self.data.validation == TEST_SET:
                facts["test_images"] = len(self.data.valid)
        tag = as_tag(self.run.folder.resolve().name)
        return Config(MODELS[self.recipe.model], options, self.data.label_names, tag, facts, self.size)

    def _save(self) -> None:
        if self.world.first:
            progress = {"step": self.step, "best": self.best, "best_loss": self.best_loss, "epoch": self.sums}
            self.run.save_checkpoint(self._parts, self.iteration.optimizer, progress)
        self.saved = time.monotonic()

    def _draw(self) -> None:
        from .plots import curves

        picture = self.run.folder / "curves.png"
        with self.run.writing(picture):
            curves(self.run.history, picture, self.recipe.paper[0])
        self.drawn = time.monotonic()

    def _stopped(self) -> Stopped:
        return Stopped(f"stopped at iteration {self.step} of {self.schedule.starts[-1]}, all saved; go on with: {self.run.resume}")

    def _ask(self) -> None:
        self.asked = True

    # ---- one iteration -----------------------------------------------------------------------------------------------

    def _iteration(self, batch: Batch, ahead: Iterator[Batch] | None = None) -> tuple[float, int, Batch | None]:
        """One optimizer step. Returns the mean loss of the batch, its right answers, and the next batch, made meanwhile."""
        results = self.iteration.gradients(batch, self.step, self.epoch, self.schedule.lr(self.step))
        asked = torch.full((1,), float(self.asked), device=self.device)
        following = next(ahead, None) if ahead else None  # while the device computes
        loss_sum, right, norm, stop = self.world.total(torch.cat([results, asked])).tolist()
        self.stop = stop > 0
        if not math.isfinite(loss_sum) or not math.isfinite(norm):
            kept = f"the last good checkpoint is {self.run.checkpoint}" if self.run.checkpoint.exists() else "nothing was saved yet"
            said = (f"the loss is {loss_sum / batch.images:.4g} and the gradient's norm {norm / self.world.size:.4g} at iteration "
                    f"{self.step + 1}: {self._overflow(batch.x)}; {kept}")
            report.log.error("diverged: %s", said)
            raise Diverged(said)
        self.iteration.descend()
        self.step += 1
        return loss_sum / batch.images, int(right), following

    def _overflow(self, x: Tensor) -> str:
        with self.iteration.autocast():
            return first_overflow(self.model, x)
