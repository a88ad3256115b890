"""config.json: what a weight file cannot say alone. timm's format, plus one key of ours. Imports neither torch nor timm."""

from __future__ import annotations

import difflib
import json
import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from .catalog import ARXIV, DATASETS, MODELS, PAPER, Dataset, Model
from .errors import UsageError, ZooError
from .shapes import MLP_WIDTHS, RESNET_WIDTHS, SMALLEST, VGG_WIDTHS

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # what moves a terminal's cursor, and halves of letters
MAX_SIDE, MAX_STEPS = 4096, 10_000
MAX_BYTES = 2**20  # of a config.json: real ones have 10 KB
MEASURED = ("top1", "top5", "measured_on", "top1_best", "top1_last", "test_images", "test_sha256", "operations", "operations_images")
"""The facts that hold for the T of the weights alone."""


# Pixels go in as they are, in [0, 1]: excitatory input is non-negative, so nothing may be subtracted.
def preprocessing(channels: int) -> dict:
    """timm's fields for it."""
    return {"mean": (0.0,) * channels, "std": (1.0,) * channels, "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "center"}


def find_model(name: str) -> Model:
    """The catalog's entry. Raises UsageError with the nearest names."""
    if name not in MODELS:
        longer = [known for known in MODELS if re.search(rf"(^|_){re.escape(name)}_", known)]  # vgg8: ei_vgg8_cifar10
        near = longer[:3] or difflib.get_close_matches(name, MODELS, 3, 0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "`eisnn-zoo list` shows them all."
        raise UsageError(f"there is no model {name!r}; {hint}")
    return MODELS[name]


def feature_size(model: Model, side: int = 0) -> int:
    """Side of the last feature map, for an input of so many pixels a side or the model's own."""
    side, least = side or model.input_size[1], SMALLEST[model.family]
    if model.family == "mlp":
        return 1
    return side // least if model.family == "vgg" else -(-side // least)


def feature_levels(model: Model) -> int:
    """How many levels of features a network has: maps of each size, or an MLP's input, its pixels and its hidden layers."""
    if model.family == "mlp":
        return 2 + len(MLP_WIDTHS[model.depth])
    return len(VGG_WIDTHS[model.depth]) if model.family == "vgg" else 1 + len(RESNET_WIDTHS)


def timm_cfg(model: Model) -> dict:
    """timm's PretrainedCfg of a model, without a weight source."""
    first = {"vgg": "stages.0.layers.0.current", "resnet": "stages.0.current", "mlp": "stages.0.layers.0.current"}[model.family]
    stem: tuple[str, ...] | str = (f"{first}.ee", f"{first}.ie")
    head: tuple[str, ...] | str = ("head.ee", "head.ie", "head.ei")
    if model.kind != "ei":
        stem, head = f"{first}.{'linear' if model.family == 'mlp' else 'conv'}", "head"
    channels = model.input_size[0]
    labels = {"label_names": list(model.dataset.label_names)} if model.dataset else {}
    return {**preprocessing(channels), "input_size": model.input_size, "num_classes": model.options["num_classes"],
            "pool_size": (feature_size(model),) * 2, "first_conv": stem, "classifier": head,
            "paper_ids": f"arXiv:{ARXIV}", "paper_name": PAPER, **labels}


@dataclass(frozen=True)
class Config:
    """Which network a weight file belongs to, and how images reach it.

    Attributes:
        model: the catalog's entry.
        options: constructor arguments beyond the depth and kind.
        label_names: one per class.
        tag: of the weights ("zoo", "paper", a run's name).
        facts: whatever the publisher recorded: recipe, accuracy, epochs, sha256 ...
        size: pixels a side of its input; the model's own where None.
    """

    model: Model
    options: dict
    label_names: tuple[str, ...]
    tag: str = ""
    facts: dict = field(default_factory=dict)
    size: int | None = None

    @property
    def input_size(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        side = self.size or self.model.input_size[1]
        return self.options.get("in_chans", self.model.input_size[0]), side, side

    @property
    def time_steps(self) -> int:
        """T."""
        return self.options["time_steps"]

    @property
    def event_input(self) -> bool:
        """Whether it takes frames of events, not pictures."""
        return bool(self.options.get("event_input"))

    @property
    def dataset(self) -> Dataset | None:
        """What it was trained on, which may not be what the model's name says; None where neither is in the catalog."""
        return DATASETS.get(str(self.facts.get("dataset")), self.model.dataset)

    @property
    def name(self) -> str:
        return f"{self.model.name}.{self.tag}" if self.tag else self.model.name

    def check_classes(self) -> None:
        """Raises UsageError where the network gives features instead of classes."""
        if not self.label_names or self.options.get("global_pool", "avg") != "avg":
            raise UsageError(f"{self.name} gives features, no classes: it was saved without an output layer or without its pool")

    def check_spiking(self) -> None:
        """Raises UsageError where the network has no spikes to study."""
        if not self.model.spiking:
            raise UsageError(f"{self.name} has no spikes, and nothing of what is studied here: name an E-I network or a BN baseline")

    def with_steps(self, time_steps: int) -> Config:
        """The same with another T, and then without what was measured with its own."""
        if time_steps == self.time_steps:
            return self
        facts = {key: value for key, value in self.facts.items() if key not in MEASURED}
        return replace(self, options={**self.options, "time_steps": time_steps}, facts=facts)

    @property
    def pretrained_cfg(self) -> dict:
        """timm's, of these weights."""
        return {**timm_cfg(self.model), **preprocessing(self.input_size[0]), "tag": self.tag, "input_size": self.input_size,
                "num_classes": len(self.label_names), "label_names": list(self.label_names),
                "pool_size": (feature_size(self.model, self.input_size[1]),) * 2}

    def to_json(self) -> dict:
        """timm's config.json, with our facts under one more top-level key, which timm ignores."""
        return json.loads(json.dumps({
            "architecture": self.model.name, "num_classes": len(self.label_names), "label_names": list(self.label_names),
            "global_pool": self.options.get("global_pool", "avg"), "model_args": self.options,
            "pretrained_cfg": self.pretrained_cfg, "eisnn_zoo": self.facts,
        }))

    @property
    def text(self) -> str:
        """The content of config.json."""
        return json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n"


def unnamed(classes: int) -> tuple[str, ...]:
    """What so many classes are called that have no names."""
    return tuple(f"class {i}" for i in range(classes))


def base_config(model: Model, tag: str = "") -> Config:
    """The configuration that a name alone stands for."""
    labels = model.dataset.label_names if model.dataset else unnamed(model.options["num_classes"])
    return Config(model, dict(model.options), labels, tag)


def parse_config(raw: object, where: str) -> Config:
    """A Config from config.json's content.

    Raises:
        ZooError: not a configuration of ours, or one that contradicts itself.
    """
    if not isinstance(raw, dict) or not isinstance(raw.get("architecture"), str):
        raise ZooError(f"{where} names no architecture: it is no configuration of an E-I network")
    try:
        model = find_model(raw["architecture"])
    except UsageError as error:
        raise ZooError(f"{where}: {error}") from error
    args, cfg = raw.get("model_args") or {}, raw.get("pretrained_cfg") or {}
    facts = raw.get("eisnn_zoo") or {}
    if not all(isinstance(part, dict) for part in (args, cfg, facts)):
        raise ZooError(f"{where}: model_args, pretrained_cfg and eisnn_zoo must be objects")
    if placed := next((key for key in ("device", "dtype") if key in args), None):
        raise ZooError(f"{where}: model_args names a {placed}, which is for whoever loads the network to choose: take it out")
    options = {**model.options, **args}
    classes, channels, steps = options["num_classes"], options["in_chans"], options["time_steps"]
    labels = raw.get("label_names") or cfg.get("label_names") or None
    if labels is None and model.dataset and classes == model.dataset.num_classes:
        labels = model.dataset.label_names
    if labels is None and whole_number(classes, 0, 10**6):
        labels = unnamed(classes)
    if not whole_number(classes, 0) or not isinstance(labels, (list, tuple)) or len(labels) != classes \
            or raw.get("num_classes", classes) != classes:
        raise ZooError(f"{where}: {classes} classes in model_args, {raw.get('num_classes')} in num_classes and "
                       f"{len(labels) if isinstance(labels, (list, tuple)) else 'no'} label names do not agree")
    if not whole_number(channels, 1, 1024):
        raise ZooError(f"{where}: in_chans {channels!r} is no number of input channels")
    if not whole_number(steps, 1, MAX_STEPS):
        raise ZooError(f"{where}: time_steps {steps!r} is no number of time steps")
    size = cfg.get("input_size") or (channels, *model.input_size[1:])
    built = args.get("input_size")  # of an MLP; timm writes the name's own into pretrained_cfg
    if model.family == "mlp" and isinstance(built, (list, tuple)):
        size = (channels, *built)
    if not (isinstance(size, (list, tuple)) and len(size) == 3 and whole_number(size[1], 1, MAX_SIDE)
            and list(size) == [channels, size[1], size[1]]):
        raise ZooError(f"{where}: input_size {size!r} is not ({channels}, side, side), what the network takes")
    side, own = size[1], model.input_size[1]
    if (model.family == "vgg" and side < SMALLEST["vgg"]) or (model.family == "mlp" and built is None and side != own):
        raise ZooError(f"{where}: {model.name} is not for images of {side} x {side} pixels")
    for key, value in preprocessing(channels).items():
        given = cfg.get(key, value)
        if (tuple(given) if isinstance(given, list) else given) != value:
            raise ZooError(f"{where}: {key} {given!r} is not how images reach an E-I network, which is {value!r}")
    tag = str(cfg.get("tag") or "")
    if tag != as_tag(tag):
        raise ZooError(f"{where}: tag {tag!r} is none: it holds / or \\, or what cannot be printed")
    # What timm saves bears the tag of the weights its name stands for, whatever the network holds; our own files say more.
    return Config(model, options, tuple(CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(label)) for label in labels), tag if facts else "",
                  facts, side)


def as_tag(name: str) -> str:
    """A name, of a folder say, where a tag stands: one that can be part of file names."""
    return "".join(c if c.isprintable() and c not in "/\\" else "_" for c in name)


def whole_number(value: object, least: int, most: float = math.inf) -> bool:
    return type(value) is int and least <= value <= most  # True and False are int's, too, for isinstance


def read_config(path: Path) -> Config:
    """A config.json file. Raises ZooError where it is missing, too large or not ours."""
    return parse_config(read_json(path), str(path))


def read_json(path: Path) -> object:
    """What a config.json file holds. Raises ZooError where it is missing, too large or not JSON."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise ZooError(f"{path} has more than {MAX_BYTES} bytes: no configuration is that large")
        return json.loads(text)
    except OSError as error:
        raise ZooError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ZooError(f"{path} is not JSON: {error}") from error
