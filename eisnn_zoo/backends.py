"""What computes the logits: torch, or onnxruntime without torch. Opening a network picks one and says which."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from .classify import Network
from .config import Config, parse_config
from .errors import UsageError, ZooError
from .weights import Located, default_weights, load_network, locate

BACKENDS = ("auto", "torch", "onnx")
ONNX = "model.onnx"


@dataclass(frozen=True)
class Opened:
    """A network ready to run: a function of arrays, its configuration, T, and what runs it where ("torch on cpu")."""

    run: Network
    config: Config
    time_steps: int
    where: str


def open_network(model: str | None = None, backend: str = "auto", device: str = "auto", time_steps: int | None = None) -> Opened:
    """A network by name, address, path or .onnx file; the best that is here where model is None.

    Args:
        backend: "torch"; "onnx"; "auto" takes the ONNX file that lies beside the weights where there is one and neither other
            time steps nor a GPU are asked for, since importing torch takes longer than one image does.

    Raises:
        UsageError: no such model, device or backend. ZooError: it cannot be had or used.
    """
    if backend not in BACKENDS:
        raise UsageError(f"--backend {backend}: choose one of {', '.join(BACKENDS)}")
    if model and model.endswith(".onnx"):
        if backend == "torch":
            raise UsageError(f"{model} is an ONNX file: --backend torch takes the weights themselves")
        return _onnx(Path(model), device, time_steps)
    located = locate(model or default_weights().name)
    beside = located.path.parent / ONNX
    if backend == "onnx":
        if not beside.is_file():
            raise UsageError(f"{located.config.name} has no ONNX file: make one with `eisnn-zoo export {model}` and name that")
        return _onnx(beside, device, time_steps, located)
    if backend == "auto" and beside.is_file() and device in ("auto", "cpu") and time_steps is None and find_spec("onnxruntime"):
        return _onnx(beside, device, None, located)
    network, device = torch_network(located, device, time_steps)
    return Opened(network, located.config, time_steps or located.config.options.get("time_steps", 4), f"torch on {device}")


def _onnx(path: Path, device: str, time_steps: int | None, located: Located | None = None) -> Opened:
    from .onnx_runtime import OnnxModel

    network = OnnxModel(path, device)
    if time_steps not in (None, network.time_steps):
        raise UsageError(f"{path} has {network.time_steps} time steps inside: export it again with --time-steps {time_steps}")
    if located and located.table and network.metadata.get("source_sha256") != located.table.sha256:
        raise ZooError(f"{path} was not made from the weights beside it: install again, or use --backend torch")
    config = located.config if located else parse_config(json.loads(json.dumps(network.config)), str(path))
    return Opened(network, config, network.time_steps, f"onnxruntime on {network.device}")


def torch_network(located: Located, device: str = "auto", time_steps: int | None = None) -> tuple[Network, str]:
    """(the folded network as a function of arrays, the device it runs on).

    Raises:
        UsageError: a device that is not there. ZooError: weights that cannot be used.
    """
    import torch

    from .folding import fold

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no GPU here; install a CUDA build of torch, or use --device cpu")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {device}: torch has no such device here") from error
    options = {} if time_steps is None else {"time_steps": time_steps}
    network = fold(load_network(located, **options).to(place), size=located.config.input_size[1:])

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            images = torch.from_numpy(x).to(place)
            if images.dim() == 4:
                images = images.contiguous(memory_format=torch.channels_last)
            return network(images).float().cpu().numpy()

    return run, device
