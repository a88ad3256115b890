"""Which weights there are, where they lie, and loading them. Only safetensors are ever read.

A model is named by ``name`` or ``name.tag``, ``hf-hub:org/name[@revision]``, ``local-dir:FOLDER``, or the path of a folder
(a published model, a run) or of a lone ``.safetensors`` file. Everything up to :func:`load_network` needs no torch.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import struct
import tomllib
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from . import hub_client
from .catalog import MODELS, RELEASE_REPO, TITLES, Model
from .config import MAX_BYTES, Config, base_config, find_model, parse_config, read_config
from .errors import UsageError, ZooError
from .files import write_atomic

if TYPE_CHECKING:
    from .networks import SpikingNet

_logger = logging.getLogger("eisnn_zoo")
WEIGHTS = "model.safetensors"
MAX_HEADER = 2**24  # bytes: real ones have 50 KB
FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Weights:
    """One row of the table of weights.

    Attributes:
        model, tag: what ``model.tag`` loads.
        top1: accuracy in % on the test set; obtained: how that figure came about.
        folder: below hub/, for weights that come with the package; repo, file, revision: on the Hub, for the others.
        sha256, size: of the file, where we host it.
    """

    model: Model
    tag: str
    top1: float
    obtained: str
    license: str
    folder: str = ""
    repo: str = ""
    file: str = ""
    revision: str = ""
    sha256: str = ""
    size: int = 0
    recipe: str = ""
    trained: str = ""

    @property
    def name(self) -> str:
        return f"{self.model.name}.{self.tag}"

    @property
    def local(self) -> Path | None:
        """The weight file where it can be read without a network, else None."""
        if self.folder:
            path = hub_folder() / self.folder / WEIGHTS
            return path if path.is_file() else None
        return hub_client.cached(self.repo, self.file, self.revision or None)


def hub_folder() -> Path:
    """hub/: inside the installed package, or at the root of a checkout."""
    inside = Path(str(resources.files(__package__))) / "hub"
    return inside if inside.is_dir() else Path(__file__).resolve().parent.parent / "hub"


def table_path() -> Path:
    """The table of the weights that lie in hub/."""
    return Path(str(resources.files(__package__))) / "weights.toml"


def read_table(path: Path) -> list[Weights]:
    """Its rows. Raises ZooError where it is no table of weights."""
    try:
        rows = tomllib.loads(path.read_text("utf-8")).get("weights", [])
        return [Weights(**{**row, "model": MODELS[row["model"]]}) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ZooError(f"{path} is no table of weights: {error}") from error


def put_row(row: Weights, path: Path) -> None:
    """Adds a row to the table, or replaces the one of the same name. Raises ZooError where path is no table of weights."""
    rows = read_table(path) if path.exists() else []
    names = [old.name for old in rows]
    if row.name in names:
        rows[names.index(row.name)] = row
    else:
        rows.append(row)
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    text = "".join(f"{line}\n" for line in lines if line.startswith("#"))
    for each in rows:
        values = {**vars(each), "model": each.model.name}
        # JSON's texts and numbers are TOML's.
        text += "\n[[weights]]\n" + "".join(f"{k} = {json.dumps(v, ensure_ascii=False)}\n" for k, v in values.items() if v)
    write_atomic(path, text)
    list_weights.cache_clear()


@functools.cache
def list_weights() -> tuple[Weights, ...]:
    """All weights, ours first; every name's rows in the order in which a name without a tag tries them."""
    ours = read_table(table_path())
    released = [Weights(model, "paper", model.released_top1, "the authors' released checkpoint: best epoch on the test set",
                        "see the authors' repository", repo=RELEASE_REPO, file=f"{model.release_folder}/{WEIGHTS}")
                for model in MODELS.values() if model.released_top1 is not None]
    return (*ours, *released)


def weights_of(name: str) -> list[Weights]:
    return [w for w in list_weights() if w.model.name == name]


@dataclass(frozen=True)
class Located:
    """A weight file and the configuration that goes with it; table is its row where it has one."""

    path: Path
    config: Config
    table: Weights | None = None


def locate(spec: str, revision: str | None = None) -> Located:
    """The files that a name, address or path stands for; fetched from the Hub only where they are not here.

    Args:
        revision: of weights on the Hub that are named; an address carries its own.
    Raises:
        UsageError: no such model, tag, folder or file. ZooError: it cannot be had, or is not what it should be.
    """
    if spec.startswith(("hf-hub:", "hf_hub:")):
        repo, _, at = spec[7:].partition("@")
        config = hub_client.fetch(repo, "config.json", at or None)
        # Both from one commit, whatever is published in between.
        return Located(hub_client.fetch(repo, WEIGHTS, hub_client.commit(config) or at or None), read_config(config))
    if spec.startswith("local-dir:"):
        return _locate_folder(Path(spec.removeprefix("local-dir:")))
    path = Path(spec)
    if path.is_dir():
        return _locate_folder(path)
    if path.is_file() or path.suffix == ".safetensors":
        return _locate_file(path)
    if "/" in spec:
        raise UsageError(f"there is no folder or file {spec}; a model on the Hub is written hf-hub:{spec}")
    return _locate_name(spec, revision)


def _locate_folder(folder: Path) -> Located:
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    if not (folder / WEIGHTS).is_file():
        runs = [d for d in ("best", "last") if (folder / d / WEIGHTS).is_file()]
        if not runs:
            raise UsageError(f"{folder} holds no {WEIGHTS}: give the folder of a published model or of a run")
        folder = folder / runs[0]
    return Located(folder / WEIGHTS, read_config(folder / "config.json"))


def _locate_file(path: Path) -> Located:
    if path.suffix != ".safetensors":
        raise UsageError(f"{path} is no .safetensors file: other weight formats can run code when loaded and are never read")
    raw = header_config(path)
    if raw is None:
        beside = path.parent / "config.json"
        if not beside.is_file():
            raise ZooError(f"{path} carries no configuration, and there is no config.json beside it: without one its "
                           "preprocessing and classes would be a guess")
        return Located(path, read_config(beside))
    return Located(path, parse_config(raw, str(path)))


def _locate_name(spec: str, revision: str | None) -> Located:
    name, _, tag = spec.partition(".")
    model = find_model(name)
    rows = weights_of(name)
    if tag:
        rows = [w for w in rows if w.tag == tag]
        if not rows:
            tags = ", ".join(w.tag for w in weights_of(name)) or "none"
            raise UsageError(f"{name} has no weights tagged {tag!r}; its tags: {tags}")
    if not rows:
        have = ", ".join(w.name for w in list_weights() if w.local) or "none yet"
        raise UsageError(f"{model.name} has no trained weights; train it, or choose one that is here: {have}")
    row = next((w for w in rows if w.local), rows[0])
    return _locate_row(row, revision)


def _locate_row(row: Weights, revision: str | None) -> Located:
    if row.folder:
        path = row.local
        if path is None:
            raise ZooError(f"the weights {row.name} belong in {hub_folder() / row.folder} and are not there: install again")
        if sha256(path) != row.sha256:
            raise ZooError(f"{path} is damaged: its sha256 is not that of {row.name}; install again")
        return Located(path, read_config(path.parent / "config.json"), row)
    revision = revision or row.revision or None
    config = hub_client.obtain(row.repo, f"{row.model.release_folder}/config.json", revision)
    path = hub_client.obtain(row.repo, row.file, hub_client.commit(config) or revision)
    return Located(path, released_config(row.model, config), row)


def released_config(model: Model, path: Path) -> Config:
    """Compares the release's config.json with the architecture that its folder's name stands for."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes")
        raw = json.loads(path.read_text("utf-8"))
        said = {"type": raw["type"], "arch": raw["arch"], "num_layers": raw["num_layers"], "dataset": raw["dataset"]}
        steps, ratio, tau = raw["T"], raw.get("ei_ratio", 4), raw.get("neuron", {}).get("tau", 2.0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ZooError(f"{path} is no configuration of the release: {error!r}") from error
    wanted = {"type": "EI-SNN", "arch": TITLES[model.family], "num_layers": model.depth, "dataset": model.dataset.release}
    wrong = [f"{key} {said[key]!r} instead of {value!r}" for key, value in wanted.items() if said[key] != value]
    if wrong:
        raise ZooError(f"{path} does not describe {model.name}: {', '.join(wrong)}")
    base = base_config(model, "paper")
    return replace(base, options={**base.options, "time_steps": steps, "ei_ratio": ratio, "tau": tau})


def default_weights() -> Weights:
    """The most accurate image classifier that is here, ready without a network."""
    here = [w for w in list_weights() if w.local and w.model.dataset and not w.model.dataset.event and w.model.input_size[0] == 3]
    if not here:
        raise ZooError("no weights are here: name a model, as in --model ei_resnet18_cifar10 (`eisnn-zoo list --pretrained`)")
    return max(here, key=lambda w: w.top1)


def sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def read_header(path: Path) -> dict:
    """The metadata in a safetensors file's header, without its tensors. Raises ZooError where it has no sound header."""
    try:
        with path.open("rb") as f:
            (length,) = struct.unpack("<Q", f.read(8))
            if length > MAX_HEADER:
                raise ValueError(f"a header of {length} bytes")
            return json.loads(f.read(length)).get("__metadata__") or {}
    except OSError as error:
        raise ZooError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, struct.error, AttributeError, RecursionError) as error:
        raise ZooError(f"{path} is no safetensors file: {error}") from error


def header_config(path: Path) -> object | None:
    """The configuration in a weight file's header, as JSON holds it; None where there is none. Raises ZooError."""
    header = read_header(path)
    text = header.get("config") if isinstance(header, dict) else None
    if not isinstance(text, str):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _agreed(located: Located) -> None:
    """Raises ZooError where config.json and the weight file's own header describe different networks."""
    raw = header_config(located.path)
    if raw is None:
        return
    own, config = parse_config(raw, f"the header of {located.path}"), located.config
    pairs = {"architecture": (own.model.name, config.model.name), "label_names": (own.label_names, config.label_names),
             "input_size": (own.input_size, config.input_size),
             **{key: (own.options.get(key), config.options.get(key)) for key in {*own.options, *config.options}}}
    other = sorted(key for key, (a, b) in pairs.items() if a != b)
    if other:
        raise ZooError(f"{located.path} does not hold the weights of the network in config.json: its own header disagrees on "
                       f"{', '.join(other)[:200]}; fetch or save the model again")


# ---- with torch -----------------------------------------------------------------------------------------------------


def load_network(located: Located, **options) -> SpikingNet:
    """The network with its weights, in evaluation mode; options override the configuration's (time_steps, say).

    Raises:
        ZooError: the file does not hold this network's weights, or breaks Dale's law.
    """
    from .networks import build

    config = located.config
    _agreed(located)
    try:
        network = build(config.model.name, **{**config.options, **options})
    except (TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError) as error:
        raise ZooError(f"{located.path.parent}: the configuration does not fit {config.model.name}: {error}") from error
    state = adapt_state(read_tensors(located.path), config.model.name, located.path)
    problems = network.load_state_dict_report(state)
    if problems:
        raise ZooError(f"{located.path} does not hold the weights of {config.name}: {' '.join(problems.split())[:500]}")
    return network.eval()


def read_tensors(path: Path) -> dict:
    """All tensors of a safetensors file. Raises ZooError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ZooError(f"{path} is no sound safetensors file: {' '.join(str(error).split())[:500]}") from error


def adapt_state(state: dict, name: str, where: Path | str = "the weights") -> dict:
    """A state in our names whichever layout it came in, checked: finite, and non-negative where Dale's law says so."""
    import torch

    from .networks import build
    from .release import from_release, is_release_state

    if is_release_state(state):
        try:
            state = from_release(build(name, device="meta"), state)
        except ValueError as error:
            raise ZooError(f"{where}: {error}") from error
    for key, value in state.items():
        kind = {"initialised": ("bool",), "num_batches_tracked": ("int64",)}.get(key.rpartition(".")[2], FLOATS)
        if str(value.dtype).removeprefix("torch.") not in kind:
            raise ZooError(f"{where}: {key} is stored as {value.dtype}, which is no type for it")
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ZooError(f"{where}: {key} holds values that are not finite")
        leaf = key.rsplit(".", 2)[-2:]
        if (leaf[-1] in ("g_i", "g_e") or leaf[0] in ("ee", "ie", "ei")) and (value < 0).any():
            raise ZooError(f"{where}: {key} holds negative values, which Dale's law forbids")
    return state


def create_model(name: str, pretrained: bool = False, **options) -> SpikingNet:
    """A network by name, address or path, in plain torch.

    Args:
        name: ``ei_vgg8_cifar10``, with or without a tag, or anything :func:`locate` takes.
        pretrained: load weights. An address or a path always does. A name without a tag takes weights that are here
            before weights on the Hub, and logs which.
        options: of :class:`~eisnn_zoo.networks.SpikingNet`; they override what the name or configuration fixes.

    Raises:
        UsageError, ZooError: see :func:`locate` and :func:`load_network`.
    """
    from .networks import build

    if not pretrained and name in MODELS:
        return build(name, **options)
    located = locate(name)
    _logger.info("%s: weights %s from %s", name, located.config.name, located.path)
    return load_network(located, **options)
