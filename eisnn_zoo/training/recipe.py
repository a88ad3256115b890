"""A recipe: everything that decides what a training run computes, flat, in one YAML file."""

from __future__ import annotations

import difflib
import hashlib
import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..catalog import DATASETS, MODELS
from ..errors import UsageError
from .reading import FOLDER

Augmentation = Literal["none", "cifar", "trivial", "crop_flip", "tinyimagenet", "cifar10dvs", "dvsgesture"]
Rate = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
OVER_EPOCHS = ("augment", "time_steps", "resolution", "batch_size", "accumulate", "lr", "alpha")  # keys that take {first epoch: value}
SAYS = ("about", "paper_top1", "paper_source", "stop_at")  # keys that change no weight
FOR_EVENTS = ("cifar10dvs", "dvsgesture")
SMALLEST = {"vgg": 32, "resnet": 8, "mlp": 1}  # pixels a side of which their pools leave one


class RecipeError(UsageError):
    """A recipe that cannot be used; the message is one sentence."""


class Recipe(BaseModel):
    """Keys of a recipe. Rates are per iteration; epochs may be fractions for the warm-up."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    model: str
    about: str = ""
    paper_top1: float | None = Field(None, ge=0, le=100)  # the figure this reproduces, and
    paper_source: str = ""  # where it stands; released checkpoints stand in the catalog, not here

    dataset: str = ""  # the model's own where empty
    holdout: int = Field(0, ge=0)  # training images set aside, by seed, for every decision
    augment: Augmentation | dict[int, Augmentation] = "none"  # or {first epoch: augmentation}
    mixup: float = Field(0.0, ge=0)  # alpha of its Beta distribution; 0: none
    cutmix: float = Field(0.0, ge=0)  # with both, each batch takes one of them
    time_steps: int | dict[int, int] = 0  # T, or {first epoch: T}; the dataset's where 0
    resolution: int | dict[int, int] = 0  # side of the images, or {first epoch: side}; the model's own where 0

    weights: str = ""  # start from these weights, with a new output layer
    freeze: bool = False  # train the output layer alone
    epochs: int = Field(300, ge=1)
    batch_size: Count | dict[int, Count] = 128  # of one optimizer step, whatever the number of processes; or {first epoch: size}
    accumulate: Count | dict[int, Count] = 1  # parts in which a batch is computed, to save memory; or {first epoch: parts}
    seed: int = Field(2025, ge=0, lt=2**31)

    optimizer: Literal["sgd", "muon"] = "sgd"
    lr: Rate | dict[int, Rate] = 1e-3  # peak, or {first epoch: peak}, each a cycle with its own warm-up and schedule
    schedule: Literal["cosine", "linear", "flat"] = "cosine"  # the rate after its warm-up, see schedule.py
    adaptive: float = Field(0.125, gt=0)  # of muon: the gains' and biases' relative step as a part of the weights'
    deflate_epochs: float = Field(0.0, ge=0)  # of muon: first epochs without the drive common to a layer's neurons, see optim.py
    warmup_epochs: float = Field(0.0, ge=0)
    warmup_lr: float = Field(1e-7, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)  # in the gradient (sgd), or of the weights by lr times this (muon)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    clip_grad: float = Field(0.0, ge=0)  # largest norm of the whole gradient; 0: any
    ema: float = Field(0.0, ge=0, lt=1)  # decay of the averaged weights, which are then evaluated; 0: none
    alpha: float | dict[int, float] = 0.0  # slope of the surrogate, or {first epoch: slope}; the model's own where 0
    stop_at: float = Field(0.0, ge=0, le=100)  # end once the validation top-1 is reached; 0: train all epochs
    precision: Literal["auto", "fp32", "bf16"] = "fp32"

    init: Literal["ei", "default"] = "ei"  # the paper's four ablations: E-I Init,
    stabilisation: Literal["adaptive", "no_ste", "none"] = "adaptive"  # stabilisation and straight-through estimator,
    scale_w_ei_gradient: bool = True  # and the 1/d of E-I Prop
    ei_ratio: int = Field(0, ge=0)  # excitatory cells per inhibitory one; the model's own (4) where 0

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
                raise _AtKey("dataset", f"{name} names no dataset: set dataset to one of {', '.join(DATASETS)}, or {FOLDER!r}")
            values["dataset"] = values.get("dataset") or model.dataset.name
            if isinstance(values["dataset"], str) and values["dataset"] != FOLDER:
                _known("dataset", values["dataset"], DATASETS)
            dataset = DATASETS.get(values["dataset"]) if isinstance(values["dataset"], str) else None
            values["time_steps"] = values.get("time_steps") or (dataset.time_steps if dataset else model.options.get("time_steps", 4))
        return values

    @model_validator(mode="after")
    def _possible(self) -> Recipe:
        for key in OVER_EPOCHS:
            value = getattr(self, key)
            if isinstance(value, dict) and (0 not in value or min(value) < 0):
                raise _AtKey(key, "{epoch: value} begins with epoch 0")
        if min(_values(self.time_steps)) < 1:
            raise _AtKey("time_steps", "a number of steps from 1, or {epoch: steps}")
        if min(_values(self.alpha)) < 0:
            raise _AtKey("alpha", "a slope above 0, or {epoch: slope}")
        model, dataset = MODELS[self.model], DATASETS.get(self.dataset)
        events = dataset.event if dataset else False
        if events and len(_values(self.time_steps)) > 1:
            raise _AtKey("time_steps", "events come in a fixed number of frames: give one number")
        for name in _values(self.augment):
            if name != "none" and (name in FOR_EVENTS) != events:
                raise _AtKey("augment", f"{name} is made for {'pictures' if events else 'events'}, which {self.dataset} does not hold")
            if name == "tinyimagenet" and (dataset.channels if dataset else model.input_size[0]) != 3:
                raise _AtKey("augment", "tinyimagenet changes colours, and the images have none")
        for key in ("mixup", "cutmix"):
            if events and getattr(self, key):
                raise _AtKey(key, f"it mixes pictures, and {self.dataset} holds events")
        least = SMALLEST[model.family]
        if self.resolution and events:
            raise _AtKey("resolution", f"{self.dataset} has the size of its sensor")
        if model.family == "mlp" and isinstance(self.resolution, dict):
            raise _AtKey("resolution", "an MLP takes images of one size: give one number")
        if any(side != 0 and side < least for side in _values(self.resolution)):
            raise _AtKey("resolution", f"a side from {least} pixels, or {{epoch: side}}")
        if self.deflate_epochs and self.optimizer != "muon":
            raise _AtKey("deflate_epochs", "only muon orthogonalises: set optimizer to muon")
        if self.warmup_epochs >= self.epochs:
            raise _AtKey("warmup_epochs", f"the warm-up must end before the last of {self.epochs} epochs")
        shortest = min(end - start for start, end, _ in self.cycles)
        if self.warmup_epochs >= shortest:
            raise _AtKey("warmup_epochs", f"the warm-up must end within the shortest cycle of lr, {shortest} epochs")
        for epoch in {*_starts(self.batch_size), *_starts(self.accumulate)}:
            size, parts = self.at("batch_size", epoch), self.at("accumulate", epoch)
            if parts > size:
                raise _AtKey("accumulate", f"a batch of {size} has no {parts} parts")
        if self.freeze and not self.weights:
            raise _AtKey("freeze", "only a network that starts from weights can be frozen: set weights")
        if self.ei_ratio and (self.weights or self.model.startswith("bn_")):
            raise _AtKey("ei_ratio", "the weights it starts from have their own" if self.weights else
                         f"{self.model} has no inhibitory cells")
        return self

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

    @property
    def final_steps(self) -> int:
        """T of the last epoch, with which the network is initialised, judged and published."""
        return self.at("time_steps", self.epochs - 1)

    def comparable(self, epoch: int) -> bool:
        """Whether this epoch computes with the T and the side of the last one, so that their accuracies can be compared."""
        return all(self.at(key, epoch) == self.at(key, self.epochs - 1) for key in ("time_steps", "resolution"))

    @property
    def ablates(self) -> bool:
        """Whether a part of the method is left out, or another network trained than the paper's."""
        return (self.init != "ei" or self.stabilisation != "adaptive" or not self.scale_w_ei_gradient
                or self.ei_ratio not in (0, 4))

    @property
    def paper(self) -> tuple[float | None, str]:
        """The figure to reproduce, in % top-1, and where it stands."""
        released = MODELS[self.model].released_top1
        if self.paper_top1 is None and released is not None and not self.ablates and self.dataset != FOLDER:
            return released, "released checkpoint, best epoch on the test set"
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
            if self.cycle_at(epoch) != begun.cycle_at(epoch):
                return "lr"
            for key in OVER_EPOCHS:
                if key != "lr" and self.at(key, epoch) != begun.at(key, epoch):
                    return key
        return ""

    def dump(self) -> str:
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True, width=120)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.dump().encode()).hexdigest()


def _values(value) -> list:
    """The value, or those of {first epoch: value}."""
    return list(value.values()) if isinstance(value, dict) else [value]


def _starts(value) -> list[int]:
    """The first epochs of a value, or of those of {first epoch: value}."""
    return list(value) if isinstance(value, dict) else [0]


class _AtKey(ValueError):
    """A value that does not go with the others, and the key to look at."""

    def __init__(self, key: str, reason: str):
        super().__init__(reason)
        self.key = key


def _known(key: str, name: str, names) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        raise _AtKey(key, f"unknown {key} {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 2e-3 as a text; people mean the number."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


def recipe_folder() -> Path:
    """recipes/: inside the installed package, or at the root of a checkout."""
    inside = Path(str(resources.files(__package__.rpartition(".")[0]))) / "recipes"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[2] / "recipes"


def recipe_names() -> list[str]:
    return sorted(p.stem for p in recipe_folder().glob("*.yaml"))


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe that is named or given as a path.

    Raises:
        RecipeError: there is none; the message has the nearest name.
    """
    if Path(name).suffix in (".yaml", ".yml") or Path(name).is_file():
        return Path(name)
    path = recipe_folder() / f"{name}.yaml"
    if "/" in str(name) or not path.is_file():
        near = difflib.get_close_matches(str(name), recipe_names(), 1)
        raise RecipeError(f"there is no recipe {str(name)!r}"
                          + (f", did you mean {near[0]!r}?" if near else "; `eisnn-zoo recipes list` shows them all"))
    return path


def load_recipe(name: str | Path, overrides: dict[str, str] | None = None) -> Recipe:
    """Reads and checks a recipe by name or path; overrides are YAML texts by key.

    Raises:
        RecipeError: unreadable file, unknown key, wrong type or impossible value, with its line.
    """
    path = find_recipe(name)
    try:
        text = path.read_text("utf-8")
        root = yaml.compose(text, _Loader)
        values = yaml.load(text, _Loader)  # a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read recipe {path}: {getattr(error, 'strerror', None) or error}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: 2024-99-99, which YAML takes for a date
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path} holds no 'key: value' lines")
    lines: dict[str, int] = {}
    for key, _ in root.value:
        if key.value in lines:
            raise RecipeError(f"{path}, line {key.start_mark.line + 1}: key {key.value!r} stands there twice")
        lines[key.value] = key.start_mark.line + 1
    for key, value in (overrides or {}).items():
        values[key] = parse_value(key, value)
        lines.pop(key, None)
    return check_recipe(values, str(path), lines)


def parse_value(key: str, text: str) -> object:
    """A value given as YAML text, as in --set. Raises RecipeError."""
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError, ValueError):
        raise RecipeError(f"{key}={text}: the value is not YAML") from None


def check_recipe(values: dict, where: str, lines: dict[str, int] | None = None) -> Recipe:
    """A Recipe from its values; lines: where each key stands in the file, for the message. Raises RecipeError."""
    try:
        return Recipe(**{str(key): value for key, value in values.items()})
    except ValidationError as error:
        first, *others = error.errors()
        if first["loc"] and isinstance(values.get(first["loc"][0]), dict):  # {epoch: value} is meant, where a lone value could stand too
            first = next((e for e in others if e["loc"][0] == first["loc"][0] and str(e["loc"][1:2]).startswith("('dict")), first)
        cause = first.get("ctx", {}).get("error")
        key = cause.key if isinstance(cause, _AtKey) else str(first["loc"][0])
        at = f"{where}, line {lines[key]}" if lines and key in lines else where
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, Recipe.model_fields, 1, 0.5)
            raise RecipeError(f"{at}: unknown key {key!r}" + (f", did you mean {near[0]!r}?" if near else "")) from None
        if first["type"] == "missing":
            raise RecipeError(f"{at}: the key {key!r} is missing") from None
        reason = first["msg"].removeprefix("Value error, ")
        given = values.get(key)
        raise RecipeError(f"{at}: {key}" + ("" if given is None else f" = {given!r}") + f": {reason}") from None
