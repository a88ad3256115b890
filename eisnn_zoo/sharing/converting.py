"""The authors' checkpoints in our names, and back, bit for bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from ..config import Config, base_config, find_model
from ..errors import UsageError, ZooError
from ..locating import config_with, read_header
from ..weights import load_state, read_tensors, write_tensors

LAYOUT = "release_layout"  # in the header of a converted file: the release's names and shapes, for the way back


def convert(source: Path, out: Path, name: str | None = None, like: Path | None = None) -> str:
    """Writes ``out`` in the other of the two layouts; returns what was done, in words.

    Every tensor that takes part keeps its bits and its type. The three that the release stores for its output layer without
    using them are left out on the way here, and on the way back taken from ``like``, or written as ones and zeros.

    Args:
        source: a .safetensors file in the release's layout or in ours.
        name: model, where the release's config.json does not lie beside the file.
        like: a checkpoint of the release of the same architecture, for a file that did not come from one.
    Raises:
        UsageError, ZooError: files that cannot be read, or that do not hold one network's weights.
    """
    from ..release import is_release_state

    for path in (source, *([like] if like else [])):
        if not path.is_file():
            raise UsageError(f"there is no file {path}")
    for path in (source, out, *([like] if like else [])):
        if path.suffix != ".safetensors":
            raise UsageError(f"{path} is no .safetensors file: other formats are neither read nor written")
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent}")
    if out.resolve() in (source.resolve(), like and like.resolve()):
        raise UsageError(f"{out} is what is read: name another file to write")
    state = read_tensors(source)
    if is_release_state(state):
        return _to_ours(source, state, out, name)
    return _to_release(source, state, out, name, like)


def _to_ours(source: Path, state: dict, out: Path, name: str | None) -> str:
    from ..networks import build
    from ..release import from_release

    config = replace(_config(source, name, "paper"), facts={})  # those of another file
    kinds = {value.dtype for value in state.values() if value.is_floating_point()}
    if len(kinds) != 1:
        raise ZooError(f"{source} mixes {len(kinds)} types of numbers: one is expected")
    try:
        ours = from_release(build(config.model.name, device="meta", dtype=kinds.pop(), **config.options), state)
    except ValueError as error:
        raise ZooError(f"{source} does not hold the weights of {config.model.name}: {error}") from error
    layout = {key: list(value.shape) for key, value in state.items()}
    write_tensors(out, ours, {"config": config.text, LAYOUT: json.dumps(layout)})
    return f"{config.model.name}, from the release's layout into ours"


def _to_release(source: Path, state: dict, out: Path, name: str | None, like: Path | None) -> str:
    import torch

    from ..networks import build
    from ..release import to_release

    config = _config(source, name)
    model = config.model
    kind = next((value.dtype for value in state.values() if value.is_floating_point()), torch.float32)
    network = build(model.name, dtype=kind, **config.options)
    load_state(network, state, f"{source} does not hold the weights of {model.name}")
    if like:
        pattern = read_tensors(like)
    else:
        try:
            shapes = json.loads(read_header(source)[LAYOUT])
            pattern = {key: torch.zeros(shape, dtype=kind) if key.endswith("bias") else torch.ones(shape, dtype=kind)
                       for key, shape in shapes.items()}
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise UsageError(f"{source} did not come from a checkpoint of the release: give one of the same architecture as --like") \
                from error
    try:
        theirs = to_release(network, pattern)
    except (ValueError, KeyError, RuntimeError) as error:
        raise ZooError(f"the weights of {model.name} do not fit the layout of {like or source}: {error}") from error
    write_tensors(out, {key: value.to(kind) if value.is_floating_point() else value for key, value in theirs.items()}, {})
    return f"{model.name}, from our layout into the release's"


def _config(source: Path, name: str | None, tag: str = "") -> Config:
    config = base_config(find_model(name), tag) if name else config_with(source)
    if config is None:
        raise UsageError(f"{source} does not say whose weights it holds: put its config.json beside it, or give --model")
    return config
