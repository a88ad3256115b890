"""The table of weights: which there are, how accurate, and where they lie."""

from __future__ import annotations

import functools
import json
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

from . import hub_client
from .catalog import MODELS, RELEASE_REPO, Model
from .config import find_model
from .errors import UsageError, ZooError
from .files import alone, write_atomic
from .shipped import PACKAGE, shipped

WEIGHTS = "model.safetensors"
ONNX = "model.onnx"  # beside them
TABLE = "weights.toml"


@dataclass(frozen=True)
class Weights:
    """One row of the table of weights.

    Attributes:
        model, tag: what ``model.tag`` loads.
        top1: accuracy in % on the test set; obtained: how that figure came about.
        folder: below hub/, for weights that come with the package; repo, file: on the Hub, for the others.
        license: of the weights. recipe: by which they were trained, and trained: for how long, on what; where we trained them.
        sha256, size: of the file, where we host it.
        time_steps: T of the published network, the architecture's where 0; see steps.
    """

    model: Model
    tag: str
    top1: float
    obtained: str
    license: str
    folder: str = ""
    repo: str = ""
    file: str = ""
    sha256: str = ""
    size: int = 0
    recipe: str = ""
    trained: str = ""
    time_steps: int = 0

    @property
    def name(self) -> str:
        return f"{self.model.name}.{self.tag}"

    @property
    def steps(self) -> int:
        """T of the published network, with which it was measured."""
        return self.time_steps or self.model.time_steps

    @property
    def local(self) -> Path | None:
        """The weight file where it can be read without a network, else None."""
        if self.folder:
            path = hub_folder() / self.folder / WEIGHTS
            return path if path.is_file() else None
        return hub_client.cached(self.repo, self.file)


def hub_folder() -> Path:
    """hub/: inside the installed package, or at the root of a checkout."""
    return shipped("hub", "hub")


def installed() -> bool:
    """Whether hub/ is a part of an installed package."""
    return hub_folder().parent == PACKAGE


def table_path() -> Path:
    """The table of the weights that lie in hub/."""
    return PACKAGE / TABLE


def place(hub: Path | None = None) -> tuple[Path, Path]:
    """Where models are packed, and the table of their weights: another folder with a table in it, or the zoo's own."""
    return (hub, hub / TABLE) if hub else (hub_folder(), table_path())


def read_table(path: Path) -> list[Weights]:
    """Its rows. Raises ZooError where it is no table of weights."""
    try:
        rows = tomllib.loads(path.read_text("utf-8")).get("weights", [])
        return [Weights(**{**row, "model": MODELS[row["model"]]}) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ZooError(f"{path} is no table of weights: {error}") from error


def put_row(row: Weights, path: Path) -> None:
    """Adds a row to the table, or replaces the one of the same name. Raises ZooError where path is no table of weights."""
    with alone(path.parent):
        rows = {old.name: old for old in (read_table(path) if path.exists() else [])} | {row.name: row}
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        text = "".join(f"{line}\n" for line in lines if line.startswith("#"))
        for each in rows.values():
            said = {f.name: getattr(each, f.name) for f in fields(each) if getattr(each, f.name) != f.default} | {"model": each.model.name}
            # JSON's texts and numbers are TOML's.
            text += "\n[[weights]]\n" + "".join(f"{k} = {json.dumps(v, ensure_ascii=False)}\n" for k, v in said.items())
        write_atomic(path, text)
    list_weights.cache_clear()


@functools.cache
def list_weights() -> tuple[Weights, ...]:
    """All weights, the most accurate first."""
    released = [Weights(model, "paper", model.released_top1, "the authors' released checkpoint: best epoch on the test set",
                        "see the authors' repository", repo=RELEASE_REPO, file=f"{model.release_folder}/{WEIGHTS}")
                for model in MODELS.values() if model.released_top1 is not None]
    return tuple(sorted([*read_table(table_path()), *released], key=lambda w: -w.top1))


def weights_of(name: str) -> list[Weights]:
    return [w for w in list_weights() if w.model.name == name]


def rows_of(spec: str) -> tuple[Model, list[Weights]]:
    """The model of a name with or without a tag, and its weights: all, or those of the tag. Raises UsageError: no such name or tag."""
    name, _, tag = spec.partition(".")
    model, rows = find_model(name), weights_of(name)
    if tag and tag not in (tags := [w.tag for w in rows]):
        raise UsageError(f"{name} has no weights tagged {tag!r}; its tags: {', '.join(tags) or 'none'}")
    return model, [w for w in rows if tag in ("", w.tag)]


def taken(rows: list[Weights]) -> Weights | None:
    """What a name without a tag takes of its weights: those that are here before those on the Hub; None where there are none."""
    return next((w for w in rows if w.local), rows[0] if rows else None)


def picture_classifiers() -> list[Weights]:
    """The E-I classifiers of pictures that are here, ready without a network: those of colour first, the most accurate first."""
    here = [w for w in list_weights() if w.local and w.model.kind == "ei" and w.model.dataset and not w.model.dataset.event]
    return sorted(here, key=lambda w: w.model.input_size[0] != 3)


def default_weights() -> Weights:
    """What is taken where nothing is named: the first of :func:`picture_classifiers`. Raises ZooError where there is none."""
    if here := picture_classifiers():
        return here[0]
    raise ZooError("no weights are here: name a model, as in --model ei_resnet18_cifar10 (`eisnn-zoo list --pretrained`)")
