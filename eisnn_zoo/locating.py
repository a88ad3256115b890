"""The weight file and configuration that a name stands for, without torch.

A model is named by ``name`` or ``name.tag``, ``hf-hub:org/name[@revision]``, ``local-dir:FOLDER``, or the path of a folder
(a published model, a run) or of a lone ``.safetensors`` file.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import hub_client
from .catalog import MODELS, TITLES, Model
from .config import Config, base_config, parse_config, read_config, read_json, whole_number
from .errors import UsageError, ZooError
from .files import sha256
from .table import WEIGHTS, Weights, hub_folder, list_weights, rows_of, taken


@dataclass(frozen=True)
class Located:
    """A weight file and the configuration that goes with it; row is that of the table of weights, where it has one."""

    path: Path
    config: Config
    row: Weights | None = None


def is_address(spec: str) -> bool:
    """Whether it is written as a model on the Hub: hf-hub:org/name, with @revision or without, timm's way or the older one."""
    return spec.startswith(("hf-hub:", "hf_hub:"))


def locate(spec: str | os.PathLike[str], revision: str | None = None) -> Located:
    """The files that a name, address or path stands for. Those of a name are fetched from the Hub only where they are not here;
    of an address the Hub is asked for newer ones.

    Args:
        revision: of weights on the Hub that are named; an address carries its own.
    Raises:
        UsageError: no such model, tag, folder or file. ZooError: it cannot be had, or is not what it should be.
    """
    spec = os.fspath(spec)
    if not spec:
        raise UsageError("the model's name is empty; `eisnn-zoo list` shows them all")
    if is_address(spec):
        repo, _, at = spec[7:].partition("@")
        config = hub_client.fetch(repo, "config.json", at or None)
        # Both from one commit, whatever is published in between.
        return Located(hub_client.fetch(repo, WEIGHTS, hub_client.commit(config) or at or None), read_config(config))
    if spec.startswith("local-dir:"):
        return _locate_folder(Path(spec.removeprefix("local-dir:")))
    path = Path(spec)
    if is_name(spec):
        return locate_name(spec, revision)
    if os.path.isdir(path):  # these take any text; Path's own raise on one that is too long
        return _locate_folder(path)
    if os.path.isfile(path) or path.suffix in (".safetensors", ".onnx"):
        return _locate_file(path)
    if "/" in spec:
        address = f"; a model on the Hub is written hf-hub:{spec}" if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", spec) else ""
        raise UsageError(f"there is no folder or file {spec}{address}")
    return locate_name(spec, revision)


def is_name(spec: str) -> bool:
    """Of weights of the table, wherever it is said; a folder of that name is ./name."""
    return any(spec in (w.name, w.model.name) for w in list_weights())


def from_anywhere(spec: str) -> str:
    """The same weights, named so that it holds in any working folder: a path becomes absolute."""
    address, path = ("local-dir:", spec[10:]) if spec.startswith("local-dir:") else ("", spec)
    return spec if is_name(spec) or not Path(path).exists() else f"{address}{Path(path).resolve()}"


def _locate_folder(folder: Path) -> Located:
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    if not (folder / WEIGHTS).is_file():
        runs = [d for d in ("best", "last") if (folder / d / WEIGHTS).is_file()]
        if not runs:
            if onnx := next(folder.glob("*.onnx"), None):
                raise UsageError(f"{folder} holds no {WEIGHTS}, but an ONNX file: give {onnx} itself")
            raise UsageError(f"{folder} holds no {WEIGHTS}: give the folder of a published model or of a run")
        folder = folder / runs[0]
    return Located(folder / WEIGHTS, _config_of(folder / "config.json"))


def _config_of(path: Path) -> Config:
    """Of a config.json in our layout, or in the release's."""
    raw = read_json(path)
    model = described(raw)
    return released_config(model, path) if model else parse_config(raw, str(path))


def _locate_file(path: Path) -> Located:
    if not os.path.isfile(path):
        raise UsageError(f"there is no file {path}")
    if is_onnx(str(path)):
        raise UsageError(f"{path} is an ONNX file, which predict, eval and benchmark take: name the weights themselves")
    if path.suffix != ".safetensors":
        raise UsageError(f"{path} is no .safetensors file: other weight formats can run code when loaded and are never read")
    config = config_with(path)
    if config is None:
        raise ZooError(f"{path} carries no configuration, and there is no config.json beside it: without one its "
                       "preprocessing and classes would be a guess")
    return Located(path, config)


def config_with(path: Path) -> Config | None:
    """What a weight file's header says of it, else the config.json beside it; None where there is neither. Raises ZooError."""
    if (raw := header_config(path)) is not None:
        return parse_config(raw, str(path))
    beside = path.parent / "config.json"
    return _config_of(beside) if beside.is_file() else None


def locate_name(spec: str, revision: str | None = None, cache_dir: str | Path | None = None) -> Located:
    """The files of ``name`` or ``name.tag`` in the table of weights, as :func:`locate` gives them.

    Args:
        cache_dir: in place of the Hub's cache.
    """
    model, rows = rows_of(spec)
    row = taken(rows)
    if row is None:
        here = [w.name for w in list_weights() if w.local]
        have = ", ".join([name for name in here if name.startswith(f"{model.name}_")] or here) or "none yet"
        raise UsageError(f"{model.name} has no trained weights; train it, or choose one that is here: {have}")
    return _locate_row(row, revision, cache_dir)


def _locate_row(row: Weights, revision: str | None, cache_dir: str | Path | None) -> Located:
    if row.folder:
        path = row.local
        if path is None:
            raise ZooError(f"the weights {row.name} belong in {hub_folder() / row.folder} and are not there: install again")
        if sha256(path) != row.sha256:
            raise ZooError(f"{path} is damaged: its sha256 is not that of {row.name}; install again")
        return Located(path, read_config(path.parent / "config.json"), row)
    config = hub_client.obtain(row.repo, f"{row.model.release_folder}/config.json", revision, cache_dir)
    path = hub_client.obtain(row.repo, row.file, hub_client.commit(config) or revision, cache_dir)
    return Located(path, released_config(row.model, config), row)


def described(raw: object) -> Model | None:
    """The model that a config.json of the release describes; None where it is none of the release's."""
    if not isinstance(raw, dict) or "arch" not in raw:
        return None
    wanted = (raw["arch"], raw.get("num_layers"), raw.get("dataset"))
    return next((m for m in MODELS.values() if m.kind == "ei" and m.dataset
                 and (TITLES[m.family], m.depth, m.dataset.release) == wanted), None)


def released_config(model: Model, path: Path) -> Config:
    """Compares the release's config.json with the architecture that its folder's name stands for."""
    raw: Any = read_json(path)
    try:
        said = {"type": raw["type"], "arch": raw["arch"], "num_layers": raw["num_layers"], "dataset": raw["dataset"]}
        steps, own = raw["T"], {"ei_ratio": raw.get("ei_ratio"), "tau": raw.get("neuron", {}).get("tau")}
    except (KeyError, TypeError, AttributeError) as error:
        raise ZooError(f"{path} is no configuration of the release: {error!r}") from error
    wanted = {"type": "EI-SNN", "arch": TITLES[model.family], "num_layers": model.depth, "dataset": model.dataset.release}
    wrong = [f"{key} {said[key]!r} instead of {value!r}" for key, value in wanted.items() if said[key] != value]
    if wrong:
        raise ZooError(f"{path} does not describe {model.name}: {', '.join(wrong)}")
    if not whole_number(steps, 1):
        raise ZooError(f"{path}: T {steps!r} is no number of time steps")
    base = base_config(model, "paper")
    own = {key: value for key, value in own.items() if value is not None}  # else the network's own default
    return replace(base, options={**base.options, "time_steps": steps, **own})


def read_header(path: Path) -> dict[str, str]:
    """The metadata in a safetensors file's header, without its tensors. Raises ZooError where it has no sound header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            return file.metadata() or {}
    except OSError as error:
        raise ZooError(f"cannot read {str(error).removesuffix(f': {path}')}: {path}") from error
    except SafetensorError as error:
        raise ZooError(f"{path} is no safetensors file: {error}") from error


def header_config(path: Path) -> object | None:
    """The configuration in a weight file's header, as JSON holds it; None where there is none. Raises ZooError."""
    text = read_header(path).get("config")
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None


def check_header(located: Located) -> None:
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


def is_onnx(name: str) -> bool:
    """Whether a model is named by an ONNX file."""
    return name.lower().endswith(".onnx")
