"""A recipe: everything that decides what a training run computes, flat, in one YAML file."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..catalog import MODELS


class RecipeError(ValueError):
    """A recipe that cannot be used; the message is one sentence."""


class Recipe(BaseModel):
    """Keys of a recipe. Rates are per iteration; epochs may be fractions for the warm-up."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    model: str
    about: str = ""
    paper_top1: float | None = Field(None, ge=0, le=100)  # the figure this reproduces, and
    paper_source: str = ""  # where it stands

    epochs: int = Field(300, ge=1)
    batch_size: int = Field(128, ge=1)
    seed: int = Field(2025, ge=0)
    holdout: int = Field(0, ge=0)  # training images set aside, by seed, for every decision
    augment: Literal["none", "cifar", "crop_flip"] = "cifar"
    time_steps: int | dict[int, int] = 4  # T, or {first epoch: T}

    optimizer: Literal["sgd", "muon"] = "sgd"
    lr: float = Field(1e-3, gt=0)
    warmup_epochs: float = Field(0, ge=0)
    warmup_lr: float = Field(1e-7, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    clip_grad: float = Field(0.0, ge=0)  # 0: none
    precision: Literal["auto", "fp32", "bf16"] = "fp32"

    init: Literal["ei", "default"] = "ei"  # the paper's four ablations: E-I Init,
    stabilisation: Literal["adaptive", "no_ste", "none"] = "adaptive"  # stabilisation and straight-through estimator,
    scale_w_ei_gradient: bool = True  # and the 1/d of E-I Prop

    @field_validator("model")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in MODELS:
            near = difflib.get_close_matches(name, MODELS, 1)
            raise ValueError(f"unknown model {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))
        return name

    @field_validator("time_steps")
    @classmethod
    def _schedule(cls, value):
        schedule = value if isinstance(value, dict) else {0: value}
        if 0 not in schedule or min(schedule) < 0 or min(schedule.values()) < 1:
            raise ValueError("time_steps is a number of steps, or {epoch: steps} starting with epoch 0")
        return value

    def steps_at(self, epoch: int) -> int:
        """T in this epoch."""
        if isinstance(self.time_steps, int):
            return self.time_steps
        return self.time_steps[max(first for first in self.time_steps if first <= epoch)]

    def dump(self) -> str:
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True, width=120)


def load_recipe(path: str | Path, overrides: dict[str, str] | None = None) -> Recipe:
    """Reads and checks a recipe; overrides are YAML texts by key.

    Raises:
        RecipeError: unreadable file, unknown key, wrong type or impossible value, with its line.
    """
    path = Path(path)
    try:
        text = path.read_text("utf-8")
        values = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read recipe {path}: {error}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path} holds no 'key: value' lines")
    for key, value in (overrides or {}).items():
        values[key] = yaml.load(value, _Numbers)
    return check_recipe(values, str(path), text)


class _Numbers(yaml.SafeLoader):
    """YAML reads 2e-3 as a text; people mean the number."""


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode):
    try:
        return float(node.value)
    except ValueError:
        return node.value


_Numbers.add_constructor("tag:yaml.org,2002:str", _number)


def check_recipe(values: dict, where: str, text: str = "") -> Recipe:
    try:
        return Recipe(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else "recipe"
        lines = [i for i, line in enumerate(text.splitlines(), 1) if line.startswith(f"{key}:")]
        at = f"{where}, line {lines[0]}" if lines else where
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, Recipe.model_fields, 1)
            raise RecipeError(f"{at}: unknown key {key!r}" + (f", did you mean {near[0]!r}?" if near else "")) from None
        message = first["msg"].removeprefix("Value error, ")
        raise RecipeError(f"{at}: {key} = {first.get('input')!r}: {message}") from None
