"""A recipe: everything that decides what a training run computes, flat, in one YAML file."""

from __future__ import annotations

import hashlib
import math
from typing import Annotated, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..catalog import DATASETS, MODELS
from ..config import MAX_SIDE, MAX_STEPS
from ..errors import did_you_mean
from ..shapes import EI_RATIO, SMALLEST
from .reading import FOLDER

Augmentation = Literal["none", "cifar", "trivial", "crop", "crop_flip", "tinyimagenet", "cifar10dvs", "dvsgesture"]
Rate = Annotated[float, Field(gt=0, le=1e6)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
SAYS = ("about", "paper_top1", "paper_source", "stop_at")  # keys that change no weight
FOR_EVENTS = ("cifar10dvs", "dvsgesture")


class Recipe(BaseModel):
    """The keys, each with its meaning (`eisnn-zoo recipes keys`); those of :data:`OVER_EPOCHS` take {first epoch: value} as well."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    model: str = Field(description="architecture of the registry: `eisnn-zoo list`")
    about: str = Field("", description="what the recipe is, in a sentence")
    paper_top1: float | None = Field(None, ge=0, le=100, description="figure this reproduces, in %; the released checkpoints' are known")
    paper_source: str = Field("", description="where that figure stands")

    dataset: str = Field("", description=f"{', '.join(DATASETS)}, or {FOLDER}: pictures of one's own; the model's own where empty")
    holdout: int = Field(0, ge=0, description=(
        "training images held out for validation, by seed; 0: validation on the test set, of a folder on its second split or a tenth"))
    augment: Augmentation | dict[int, Augmentation] = Field(
        "none", description="random changes; crop moves an image and does not mirror it; cifar is crop_flip and Cutout")
    mixup: float = Field(0.0, ge=0, description="alpha of MixUp's Beta distribution; 0: none")
    cutmix: float = Field(0.0, ge=0, description="the same of CutMix; with both, each batch takes one of them")
    time_steps: int | dict[int, int] = Field(0, description="T; 0: the dataset's, of a folder the model's")
    resolution: int | dict[int, int] = Field(0, description="side of the images in pixels; 0: the dataset's, of a folder the model's")

    weights: str = Field("", description="start from these weights, with a new output layer where the classes are others; grow a deeper "
                                         "E-I VGG or MLP from them")
    freeze: bool = Field(False, description="train the output layer alone")
    epochs: int = Field(300, ge=1, le=10**6, description="passes over the training images")
    batch_size: Count | dict[int, Count] = Field(128, description="images of one optimizer step, whatever the number of processes")
    accumulate: Count | dict[int, Count] = Field(1, description="parts in which a batch is computed, to save memory")
    seed: int = Field(2025, ge=0, lt=2**31, description="of the initial weights, the order of images and their augmentation")

    optimizer: Literal["sgd", "muon"] = Field("sgd", description="with Dale's law in its step; muon: steps relative to a parameter's size")
    lr: Rate | dict[int, Rate] = Field(1e-3, description="peak of the step size; several are cycles, each with its own warm-up and decay")
    schedule: Literal["cosine", "linear", "flat"] = Field("cosine", description="step size after the warm-up, an iteration at a time")
    adaptive: float = Field(0.125, gt=0, description="of muon: relative step of W_EI, gains and biases, as a part of the weights'")
    inhibitory: float = Field(1.0, gt=0, description="of muon: the inhibitory cells' (W_IE, g_I) relative steps as a part of the others'")
    least_inhibition: Share | dict[int, Share] = Field(0.0, description="of muon: W_EI stays at or above this part of its initial size")
    homeostasis: Share | dict[int, Share] = Field(0.0, description="rate at which biases hold cells' mean currents; 0: they only learn")
    deflate_epochs: float = Field(0.0, ge=0, description="of muon: first epochs without the drive common to a layer's neurons")
    warmup_epochs: float = Field(0.0, ge=0, description="epochs, or a part of one, in which the step size rises")
    warmup_lr: float = Field(1e-7, ge=0, description="step size of the first iteration of a warm-up")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd, and of muon's weights")
    weight_decay: float = Field(5e-4, ge=0, description="in the gradient (sgd), or of the weights by this times their relative step (muon)")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="part of the target that is spread over all classes")
    teacher: str = Field("", description="weights of a trained network whose answers are learned beside the classes")
    distillation: float = Field(0.5, gt=0, le=1, description="weight in the loss of the distance from the teacher's answers")
    temperature: Rate = Field(2.0, description="of the softmax of both, in that distance")
    clip_grad: float = Field(0.0, ge=0, description="largest norm of the whole gradient; 0: any")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights, which are then evaluated; 0: none")
    alpha: float | dict[int, float] = Field(0.0, description="slope of the surrogate; 0: the model's own")
    stop_at: float = Field(0.0, ge=0, le=100, description="end once the validation top-1 in % is reached; 0: train all epochs")
    precision: Literal["auto", "fp32", "bf16"] = Field("fp32", description="bf16: autocast; auto: the faster of both, measured")

    init: Literal["ei", "standardised", "default"] = Field("ei", description=(
        "E-I Init; then, standardised, gains and biases by which each cell's current has mean 0 and variance 1; or (ablation) torch's own"))
    stabilisation: Literal["adaptive", "no_ste", "none"] = Field("adaptive", description="of the division; no_ste, none: ablations")
    scale_w_ei_gradient: bool = Field(True, description="the 1/d of E-I Prop; false: ablation")
    ei_ratio: int = Field(0, ge=0, description="excitatory cells per inhibitory one; 0: the model's own, 4")

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: dict) -> dict:
        """What follows from the model: its dataset, and the dataset's T."""
        values = dict(values)
        name = values.get("model")
        if isinstance(name, str):
            _known("model", name, MODELS)
            model = MODELS[name]
            if not values.get("dataset") and model.dataset is None:
                raise AtKey("dataset", f"{name} names no dataset: set dataset to one of {', '.join(DATASETS)}, or {FOLDER!r}")
            values["dataset"] = values.get("dataset") or model.dataset.name
            if isinstance(values["dataset"], str) and values["dataset"] != FOLDER:
                _known("dataset", values["dataset"], DATASETS)
            dataset = DATASETS.get(values["dataset"]) if isinstance(values["dataset"], str) else None
            if (steps := values.get("time_steps")) is None or (type(steps) is int and steps == 0):
                values["time_steps"] = dataset.time_steps if dataset and model.spiking else model.time_steps
        return values

    @model_validator(mode="after")
    def _possible(self) -> Recipe:
        for key in OVER_EPOCHS:
            value = getattr(self, key)
            if isinstance(value, dict) and (0 not in value or min(value) < 0):
                raise AtKey(key, "{epoch: value} begins with epoch 0")
        if min(_values(self.time_steps)) < 1:
            raise AtKey("time_steps", "a number of steps from 1, or {epoch: steps}")
        if max(_values(self.time_steps)) > MAX_STEPS:
            raise AtKey("time_steps", f"more than {MAX_STEPS:,} steps fit into no memory")
        if max(_values(self.resolution)) > MAX_SIDE:
            raise AtKey("resolution", f"images have {MAX_SIDE:,} pixels a side at most")
        if min(_values(self.alpha)) < 0:
            raise AtKey("alpha", "a slope above 0, or {epoch: slope}")
        model, dataset = MODELS[self.model], DATASETS.get(self.dataset)
        events = dataset.event if dataset else False
        if events and len(_values(self.time_steps)) > 1:
            raise AtKey("time_steps", "events come in a fixed number of frames: give one number")
        for name in _values(self.augment):
            if name != "none" and (name in FOR_EVENTS) != events:
                raise AtKey("augment", f"{name} is made for {'pictures' if events else 'events'}, which {self.dataset} does not hold")
            if name == "tinyimagenet" and (dataset.channels if dataset else model.input_size[0]) != 3:
                raise AtKey("augment", "tinyimagenet changes colours, and the images have none")
        for key in ("mixup", "cutmix"):
            if events and getattr(self, key):
                raise AtKey(key, f"it mixes pictures, and {self.dataset} holds events")
        least, own = SMALLEST[model.family], dataset.size if dataset else model.input_size[1]
        if self.resolution and events:
            raise AtKey("resolution", f"{self.dataset} has the size of its sensor")
        if self.dataset == "tinyimagenet200" and max(_values(self.resolution)) > own:  # larger are its training images alone
            raise AtKey("resolution", f"the test images of {self.dataset} are read at {own} pixels: not more")
        if self.dataset == FOLDER and max(side or own for side in _values(self.resolution)) > self.side(self.epochs - 1, own):
            raise AtKey("resolution", "pictures are read at the size of the last epoch: none before may be larger")
        if model.family == "mlp" and isinstance(self.resolution, dict):
            raise AtKey("resolution", "an MLP takes images of one size: give one number")
        if any((side or own) < least for side in _values(self.resolution)):
            raise AtKey("resolution", f"{model.name} takes a side from {least} pixels, or {{epoch: side}}")
        for key in ("deflate_epochs", "adaptive", "inhibitory", "least_inhibition"):
            if self.optimizer != "muon" and self._says(key):
                raise AtKey(key, "only muon has that: set optimizer to muon")
        if self.optimizer == "muon" and not self.scale_w_ei_gradient:
            raise AtKey("scale_w_ei_gradient", "muon's step of W_EI is as long whatever its gradient's size: set optimizer to sgd")
        if self._says("warmup_lr") and not self.warmup_epochs:
            raise AtKey("warmup_lr", "it begins a warm-up, and there is none: set warmup_epochs")
        if self.warmup_epochs >= self.epochs:
            raise AtKey("warmup_epochs", f"the warm-up must end before the last of {self.epochs} epochs")
        shortest = min(end - start for start, end, _ in self.cycles)
        if self.warmup_epochs >= shortest:
            raise AtKey("warmup_epochs", f"the warm-up must end within the shortest cycle of lr, {shortest} epochs")
        for epoch in {*_starts(self.batch_size), *_starts(self.accumulate)}:
            size, parts = self.at("batch_size", epoch), self.at("accumulate", epoch)
            if parts > size:
                raise AtKey("accumulate", f"a batch of {size} has no {parts} parts")
        for key in ("init", "homeostasis", "ei_ratio", "inhibitory", "least_inhibition", "stabilisation", "scale_w_ei_gradient"):
            if model.kind != "ei" and self._says(key):
                raise AtKey(key, f"{self.model} has BatchNorm in place of inhibitory cells, and nothing of that")
        if not model.spiking and any(_values(self.alpha)):
            raise AtKey("alpha", f"{self.model} has no spikes, and no surrogate of their gradient")
        if not model.spiking and max(_values(self.time_steps)) > 1:
            raise AtKey("time_steps", f"{self.model} has no spikes, and time is nothing to it: leave time_steps out")
        for key in ("init", "ei_ratio"):
            if self.weights and self._says(key):
                raise AtKey(key, "it belongs to a network's beginning, and this one starts from weights")
        for key in ("distillation", "temperature"):
            if self._says(key) and not self.teacher:
                raise AtKey(key, "it belongs to a teacher, and there is none: set teacher to trained weights")
        if self.label_smoothing and self.teacher and self.distillation == 1:
            raise AtKey("label_smoothing", "classes have no part in a loss that is the teacher's alone (distillation: 1)")
        if self.freeze and any(_values(self.alpha)):
            raise AtKey("alpha", "no gradient passes the neurons of a frozen network")
        if self.freeze and not self.weights:
            raise AtKey("freeze", "only a network that starts from weights can be frozen: set weights")
        if self.freeze and any(_values(self.homeostasis)):
            raise AtKey("homeostasis", "it moves biases, and a frozen network keeps them")
        return self

    def _says(self, key: str) -> bool:
        """Whether a key has another value than where nothing is said."""
        return getattr(self, key) != type(self).model_fields[key].default

    @property
    def cycles(self) -> list[tuple[int, int, float]]:
        """First epoch, end and peak of every cycle of the rate that begins within the run."""
        peaks = self.lr if isinstance(self.lr, dict) else {0: self.lr}
        starts = sorted(start for start in peaks if start < self.epochs)
        return [(start, end, peaks[start]) for start, end in zip(starts, [*starts[1:], self.epochs])]

    def cycle_at(self, epoch: int) -> tuple[int, int, float]:
        """The cycle that this epoch lies in."""
        return max(cycle for cycle in self.cycles if cycle[0] <= epoch)

    def at(self, key: str, epoch: int):
        """The value of one of :data:`OVER_EPOCHS` in this epoch; of lr, that of the cycle, whose peak it is."""
        value = getattr(self, key)
        return value[max(first for first in value if first <= epoch)] if isinstance(value, dict) else value

    def side(self, epoch: int, own: int) -> int:
        """Pixels a side of the images in this epoch; own where the recipe names none."""
        return self.at("resolution", epoch) or own

    def part_size(self, epoch: int, processes: int) -> int:
        """Images that each process computes at a time, of a whole batch."""
        return math.ceil(self.at("batch_size", epoch) / self.at("accumulate", epoch) / processes)

    @property
    def final_steps(self) -> int:
        """T of the last epoch, with which the network is initialised, judged and published."""
        return self.at("time_steps", self.epochs - 1)

    def comparable(self, epoch: int) -> bool:
        """Whether this epoch computes with the T and the side of the last one, so that their accuracies can be compared."""
        return all(self.at(key, epoch) == self.at(key, self.epochs - 1) for key in ("time_steps", "resolution"))

    def reached(self, top1: float) -> bool:
        """Whether a validation top-1 in % of a comparable epoch is the one to end at."""
        return 0 < self.stop_at <= top1

    @property
    def task(self) -> tuple:
        """What an accuracy is of: the network as it is run, the data, and what is left out of the method."""
        return (self.model, self.dataset, self.final_steps, self.at("resolution", self.epochs - 1), self.init == "default",
                self.stabilisation, self.scale_w_ei_gradient, self.ei_ratio)

    @property
    def ablates(self) -> bool:
        """Whether a part of the method is left out, or another network trained than the paper's."""
        return (self.init == "default" or self.stabilisation != "adaptive" or not self.scale_w_ei_gradient
                or self.ei_ratio not in (0, EI_RATIO))

    @property
    def doubts(self) -> list[str]:
        """What is allowed, but is known to cost accuracy or was probably not meant, in a sentence each."""
        unreached = [(key, value, max(value)) for key in OVER_EPOCHS
                     if isinstance(value := getattr(self, key), dict) and max(value) >= self.epochs]
        said = [f"{key}: {value[last]} from epoch {last + 1} on never comes, as training ends after epoch {self.epochs}"
                for key, value, last in unreached]
        for epoch in range(1, self.epochs):
            before, after = self.at("augment", epoch - 1), self.at("augment", epoch)
            if before != after and self.at("homeostasis", epoch):
                said.append(f"in epoch {epoch + 1} augment changes from {before} to {after}, and homeostasis will move biases to suit the "
                            "new pictures, which cost accuracy where it was tried: let it end there, as in "
                            f'--set "homeostasis={{0: {self.at("homeostasis", epoch - 1):g}, {epoch}: 0}}"')
                break
        return said

    @property
    def paper(self) -> tuple[float | None, str]:
        """The figure to reproduce, in % top-1, and where it stands."""
        model, last = MODELS[self.model], self.epochs - 1
        same = (model.dataset and self.dataset == model.dataset.name and self.final_steps == model.time_steps
                and self.at("resolution", last) in (0, model.dataset.size) and not self.ablates)
        if self.paper_top1 is None and model.released_top1 is not None and same:
            return model.released_top1, "released checkpoint, best epoch on the test set"
        return self.paper_top1, self.paper_source

    def departs(self, begun: Recipe, epochs: int) -> str:
        """The first key in which so many epochs by this recipe differ from those of another, begun; "" where they are the same.

        Then a run of the other can be gone on with by this one, to the same weights as a run by this one alone.
        """
        for key in type(self).model_fields:
            if key not in (*OVER_EPOCHS, *SAYS, "epochs") and getattr(self, key) != getattr(begun, key):
                return key
        for key in ("time_steps", "resolution"):  # E-I Init is drawn with those of the end
            if self.at(key, self.epochs - 1) != begun.at(key, begun.epochs - 1):
                return key
        for epoch in range(epochs):
            (start, _, peak), (begun_start, _, begun_peak) = self.cycle_at(epoch), begun.cycle_at(epoch)
            if (start, peak) != (begun_start, begun_peak):
                return "lr"
            for key in OVER_EPOCHS:
                if key != "lr" and self.at(key, epoch) != begun.at(key, epoch):
                    return key
        end = self.cycle_at(epochs - 1)[1] if epochs else 0  # step sizes follow from the iterations up to there
        if epochs and end != begun.cycle_at(epochs - 1)[1]:
            return "epochs" if end == self.epochs else "lr"
        return next(("batch_size" for epoch in range(end) if self.at("batch_size", epoch) != begun.at("batch_size", epoch)), "")

    def dump(self) -> str:
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True, width=120)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.dump().encode()).hexdigest()


OVER_EPOCHS = tuple(key for key, field in Recipe.model_fields.items() if dict in map(get_origin, get_args(field.annotation)))
"""Keys that take {first epoch: value}."""


def _values(value) -> list:
    """The value, or those of {first epoch: value}."""
    return list(value.values()) if isinstance(value, dict) else [value]


def _starts(value) -> list[int]:
    """The first epochs of a value, or of those of {first epoch: value}."""
    return list(value) if isinstance(value, dict) else [0]


class AtKey(ValueError):
    """A value that does not go with the others, and the key to look at."""

    def __init__(self, key: str, reason: str):
        super().__init__(reason)
        self.key = key


def _known(key: str, name: str, names) -> None:
    if name not in names:
        raise AtKey(key, f"unknown {key} {name!r}" + did_you_mean(name, names))
