"""What computes the logits: torch, or onnxruntime without torch. Opening a network picks one and says which."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import Config, parse_config
from ..errors import UsageError, ZooError
from ..files import sha256
from ..locating import Located, check_header, is_onnx, locate
from ..table import ONNX, Weights, default_weights, list_weights
from .onnx_runtime import OnnxModel, import_onnxruntime

if TYPE_CHECKING:
    from .torch_runtime import TorchModel

_logger = logging.getLogger("eisnn_zoo")

BACKENDS = ("auto", "torch", "onnx")


@dataclass(frozen=True)
class Opened:
    """A network ready to run.

    Attributes:
        run: a function of arrays, with the time steps and the device that it has.
        config: its configuration.
        row: of the table of weights, for those that it was made from, where it has one.
    """

    run: TorchModel | OnnxModel
    config: Config
    row: Weights | None = None

    @property
    def time_steps(self) -> int:
        return self.run.time_steps

    @property
    def where(self) -> str:
        """In words: "torch on cpu"."""
        backend = "onnxruntime" if isinstance(self.run, OnnxModel) else "torch"
        return f"{backend} on {self.run.device}" + ("" if self.run.precision == "fp32" else f" in {self.run.precision}")


def open_network(model: str | None = None, backend: str = "auto", device: str = "auto", time_steps: int | None = None,
                 compile: bool = False, precision: str = "fp32", stepwise: str = "") -> Opened:
    """A network by name, address, path or .onnx file; the best that is here where model is None.

    Args:
        backend: "torch"; "onnx"; "auto" takes the ONNX file that lies beside the weights where there is one and nothing that it
            cannot do is asked for (other time steps, a GPU, the arguments below), since importing torch takes longer than one
            image does.
        compile: with torch.compile.
        precision: "fp32", or "int8" (torch, on a CPU); an ONNX file has its own inside.
        stepwise: the option, if any, that needs the answer after every single step, which only torch gives.

    Raises:
        UsageError: no such model, device or backend, or one that cannot do what is asked. ZooError: it cannot be had or used.
    """
    if backend not in BACKENDS:
        raise UsageError(f"--backend {backend}: choose one of {', '.join(BACKENDS)}")
    if backend == "auto" and device == "tensorrt":  # which runs nothing else
        backend = "onnx"
    from_file = bool(model and is_onnx(model))
    if from_file and backend == "torch":
        raise UsageError(f"{model} is an ONNX file: --backend torch takes the weights themselves")
    for_torch = [option for option, asked in ((stepwise, stepwise), ("--compile", compile), ("--precision", precision != "fp32")) if asked]
    if for_torch and (from_file or backend == "onnx"):
        raise UsageError(f"{for_torch[0]} needs torch, an ONNX file is as it was exported: name the weights, with --backend torch")
    if from_file:
        return _onnx(Path(str(model)), device, time_steps)
    located = locate(default_weights().name if model is None else model)
    located.config.check_classes()
    beside = located.path.parent / ONNX
    if backend == "onnx":
        if not beside.is_file():
            name = located.config.name
            raise UsageError(f"{name} has no ONNX file: make one with `eisnn-zoo export {name}` and name that")
        return Opened(onnx_beside(located, device, time_steps), located.config, located.row)
    light = device in ("auto", "cpu") and time_steps is None and not for_torch
    if backend == "auto" and light and beside.is_file() and _has_onnxruntime():
        return Opened(onnx_beside(located, device), located.config, located.row)
    from .torch_runtime import TorchModel

    return Opened(TorchModel(located, device, time_steps, compile, precision), located.config, located.row)


def _has_onnxruntime() -> bool:
    if not find_spec("onnxruntime"):
        return False
    try:
        import_onnxruntime()
    except ZooError as error:
        _logger.warning("%s; torch computes instead", error)
        return False
    return True


def onnx_beside(located: Located, device: str = "cpu", time_steps: int | None = None) -> OnnxModel:
    """The ONNX file that lies beside weights.

    Args:
        time_steps: T that it is to have; None: that of the weights.
    Raises:
        UsageError: it has another. ZooError: it was not made from these weights.
    """
    network = OnnxModel(located.path.parent / ONNX, device)
    check_header(located)
    if network.metadata.get("source_sha256") != ((located.row and located.row.sha256) or sha256(located.path)):
        raise ZooError(f"{network.path} was not made from the weights beside it: export it again, or use --backend torch")
    check_steps(network, time_steps or located.config.time_steps)
    return network


def _onnx(path: Path, device: str, time_steps: int | None) -> Opened:
    network = OnnxModel(path, device)
    config = parse_config(network.config, str(path))
    config.check_classes()
    check_steps(network, time_steps or network.time_steps)
    source = network.metadata.get("source_sha256")
    row = next((w for w in list_weights() if w.sha256 and w.sha256 == source), None)
    return Opened(network, config, row)


def check_steps(network: OnnxModel, wanted: int) -> None:
    """Raises UsageError where an ONNX file has another T inside than is wanted."""
    if network.time_steps != wanted:
        raise UsageError(f"{network.path} has {network.time_steps} time steps inside: export it again with --time-steps {wanted}")
