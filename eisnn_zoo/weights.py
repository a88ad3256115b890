"""Networks with their weights. Only safetensors are ever read."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from .catalog import MODELS
from .config import Config
from .errors import UsageError, ZooError
from .files import write_atomic
from .locating import Located, check_header, locate
from .table import WEIGHTS

if TYPE_CHECKING:
    from .networks import SpikingNet

_logger = logging.getLogger("eisnn_zoo")
RESHAPING = ("num_classes", "in_chans", "ei_ratio", "input_size")  # options that give tensors other shapes
FLOATS = ("float16", "bfloat16", "float32", "float64")


def load_network(located: Located, **options) -> SpikingNet:
    """The network with its weights, in evaluation mode; options that are not None override the configuration's (time_steps, say).

    Raises:
        ZooError: the file does not hold this network's weights, or breaks Dale's law. UsageError: options that cannot be.
    """
    from .networks import build, describe

    config = located.config
    check_header(located)
    given = {key: value for key, value in options.items() if value is not None}
    changed = {key: value for key, value in given.items() if value != config.options.get(key)}
    try:
        network = build(config.model.name, **{**config.options, **given})
    except (TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError) as error:
        if changed:
            raise UsageError(f"{config.name} with {_words(changed)}: {error}") from error
        raise ZooError(f"{located.path.parent}: the configuration does not fit {config.model.name}: {error}") from error
    state = adapt_state(read_tensors(located.path), config.model.name, located.path, **config.options)
    shapes = {key: value for key, value in changed.items() if key in RESHAPING}
    otherwise = f"{located.path} does not hold the weights of {config.name}"
    if shapes:
        otherwise = (f"the weights of {config.name} do not fit a network with {_words(shapes)}; for other classes or channels use "
                     "timm.create_model(..., pretrained=True), or `eisnn-zoo finetune`")
    load_state(network, state, otherwise)
    describe(network, config.model.name, config.pretrained_cfg)
    return network.eval()


def _words(options: dict) -> str:
    return ", ".join(f"{key} = {value!r}" for key, value in options.items())


def load_state(network: SpikingNet, state: dict, otherwise: str) -> None:
    """Loads state strictly. Raises ZooError, which begins with otherwise, where not all of it fits."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        what = " ".join(str(error).partition(":")[2].split())  # less "Error(s) in loading state_dict for SpikingVGG"
        raise ZooError(f"{otherwise}: {what[:500]}") from error


def save_network(folder: Path, state: dict, config: Config) -> None:
    """Writes ``model.safetensors`` and ``config.json``, each complete or not at all; the former has the latter in its header too."""
    write_tensors(folder / WEIGHTS, state, {"config": config.text})
    write_atomic(folder / "config.json", config.text)


def write_tensors(path: Path, tensors: dict, metadata: dict[str, str]) -> None:
    """A safetensors file, complete or not at all. Raises OSError, also where the library says it in its own way."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    own = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}

    def save(beside: Path) -> None:
        save_file(own, beside, {"format": "pt", **metadata})
        _in_order(beside)

    try:
        write_atomic(path, save)
    except SafetensorError as error:
        if found := re.search(r"(?:os error|code:) (\d+)", str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error
        raise


def _in_order(path: Path) -> None:
    """So that the same weights are the same file: the library writes metadata in an order that changes."""
    with path.open("r+b") as f:
        length = int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:
            f.seek(8)
            f.write(text.ljust(length))


def read_tensors(path: Path) -> dict:
    """All tensors of a safetensors file. Raises ZooError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ZooError(f"{path} is no sound safetensors file: {' '.join(str(error).split())[:500]}") from error


def adapt_state(state: dict, name: str, where: Path | str = "the weights", **options) -> dict:
    """A state in our names whichever layout it came in, checked: finite, and non-negative where Dale's law says so.

    Args:
        name: of the model. options: that the weights' network was built with, where they are not the model's own.
    """
    import torch

    from .networks import build
    from .release import from_release, is_release_state

    if is_release_state(state):
        try:
            state = from_release(build(name, device="meta", **options), state)
        except ValueError as error:
            raise ZooError(f"{where}: {error}") from error
    counts = {"initialised": torch.bool, "num_batches_tracked": torch.int64}  # numbers too where all of a state was halved or averaged
    for key, value in state.items():
        kind, real = counts.get(key.rpartition(".")[2]), str(value.dtype).removeprefix("torch.") in FLOATS
        if kind and real and torch.equal(value.to(kind).to(value.dtype), value):
            state = {**state, key: value.to(kind)}
        elif value.dtype != kind if kind else not real:
            raise ZooError(f"{where}: {key} is stored as {value.dtype}, which is no type for it")
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ZooError(f"{where}: {key} holds values that are not finite")
        leaf = key.rsplit(".", 2)[-2:]
        if (leaf[-1] in ("g_i", "g_e") or leaf[0] in ("ee", "ie", "ei")) and (value < 0).any():
            raise ZooError(f"{where}: {key} holds negative values, which Dale's law forbids: call model.project_() after each "
                           "step of the optimizer; load_state_dict, project_() and saving again makes this file a network")
    return state


def create_model(name: str, pretrained: bool = False, **options) -> SpikingNet:
    """A network by name, address or path, in plain torch.

    Args:
        name: ``ei_vgg8_cifar10``, with or without a tag, or anything :func:`locate` takes.
        pretrained: load weights. A tag, an address or a path always does. A name without a tag takes weights that are here
            before weights on the Hub, the most accurate first, and logs which.
        options: of :class:`~eisnn_zoo.networks.SpikingNet`; they override what the name or configuration fixes.

    Raises:
        UsageError: there is no such name, tag, folder or file. ZooError: weights that cannot be had, or do not fit the network.
        ValueError, TypeError: options that are impossible, or that there are not.
    """
    from .networks import build

    if not pretrained and name in MODELS:
        return build(name, **options)
    located = locate(name)
    _logger.info("%s: weights %s from %s", name, located.config.name, located.path)
    return load_network(located, **options)
