"""Running an exported network with numpy and onnxruntime alone: neither torch nor timm is imported."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from ..config import MAX_STEPS
from ..errors import UsageError, ZooError

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
INSTALL = {"cuda": "pip install onnxruntime-gpu, with CUDA and cuDNN as it wants them",
           "tensorrt": "pip install onnxruntime-gpu, with CUDA and TensorRT as it wants them"}
PRECISIONS = ("fp32", "fp16", "int8")
STRICT = {"cuda": {"use_tf32": "0", "cudnn_conv_algo_search": "DEFAULT"}}  # no choice by timing: a rounding moved is a spike flipped


def import_onnxruntime():
    """The module, its telemetry off, which it has on where nobody says otherwise. Raises ZooError where it is not installed."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ZooError(f"running .onnx files needs onnxruntime ({error}): pip install onnxruntime") from error
    except ImportError as error:
        raise ZooError(f"onnxruntime is installed and does not load ({_first_line(error)}): install it again; on Windows it needs "
                       "Microsoft's Visual C++ Redistributable") from error
    return onnxruntime


def session_options(onnxruntime, threads: int | None):
    """Quiet, and with 8-bit weights turned into float32 once, when the file is loaded, not in every run."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


class OnnxModel:
    """A network from ``eisnn-zoo export``, as a function of arrays.

    Args:
        path: the .onnx file.
        device: "cpu", "cuda", "tensorrt" (which compiles the network for minutes when it is opened), or "auto": CUDA where
            onnxruntime can use it, else the CPU.
        threads: of the CPU for one batch; None leaves the choice to onnxruntime.

    Attributes:
        config: the network's config.json, as the file carries it.
        time_steps: T.
        precision: "fp32", "fp16" or "int8".
        input_shape: of one input, without the batch: (C, H, W), or (T, C, H, W) for event frames.
        device: the one that it runs on.

    Raises:
        UsageError: no such device. ZooError: the file is missing, damaged, not ours, or the device would not be used.
    """

    def __init__(self, path: str | Path, device: str = "auto", threads: int | None = None):
        if device not in ("auto", *PROVIDERS):
            raise UsageError(f"--device {device}: onnxruntime takes auto, {', '.join(PROVIDERS)}")
        if not Path(path).is_file():
            raise UsageError(f"there is no file {path}")
        onnxruntime = import_onnxruntime()
        self.path, options = Path(path), session_options(onnxruntime, threads)
        self._made_of = path, device, threads
        wanted = self._wanted(onnxruntime.get_available_providers(), device)
        try:
            self._session = onnxruntime.InferenceSession(str(path), options,
                                                         providers=[(PROVIDERS[w], STRICT.get(w, {})) for w in wanted])
        except Exception as error:  # onnxruntime has an exception class of its own for every status code
            raise ZooError(f"{path} is no ONNX file that onnxruntime can run: {_first_line(error)}") from error
        # onnxruntime falls back to the CPU without a word when a library of the GPU is missing.
        got = self._session.get_providers()
        self.device = next(w for w in (*wanted, "cpu") if PROVIDERS[w] in got)
        if device not in ("auto", self.device):
            raise ZooError(f"onnxruntime cannot use {device} here and would have run on the CPU: {INSTALL[device]}, or --device cpu")
        self._read(path, self._session.get_modelmeta().custom_metadata_map)
        self._input, self.input_shape = self._takes(path)

    def __reduce__(self):
        """Another process opens the file again: a session cannot be sent."""
        return type(self), self._made_of

    @staticmethod
    def _wanted(available: list[str], device: str) -> list[str]:
        """Devices in the order in which they are given work; what the first cannot do goes to the next."""
        if device not in ("auto", "cpu") and PROVIDERS[device] not in available:
            raise UsageError(f"this onnxruntime has no {device}: {INSTALL[device]}, or --device cpu")
        order = {"auto": ("cuda", "cpu"), "tensorrt": ("tensorrt", "cuda", "cpu")}.get(device, (device, "cpu"))
        return [d for d in dict.fromkeys(order) if PROVIDERS[d] in available]

    def _read(self, path: str | Path, metadata: dict[str, str]) -> None:
        try:
            self.config: dict = json.loads(metadata["config"])
            self.time_steps, self.precision = int(metadata["time_steps"]), metadata["precision"]
            if not isinstance(self.config, dict) or not 1 <= self.time_steps <= MAX_STEPS or self.precision not in PRECISIONS:
                raise ValueError("none of ours")
        except (KeyError, ValueError, RecursionError) as error:
            raise ZooError(f"{path} carries no configuration of an E-I network: without one its preprocessing and classes would "
                           "be a guess; make it with `eisnn-zoo export`") from error
        self.metadata = metadata

    def _takes(self, path: str | Path) -> tuple[str, tuple[int, ...]]:
        """(name of the input, shape of one). Raises ZooError where images of any number do not go in, or one logit a class does not
        come out."""
        ins, outs = self._session.get_inputs(), self._session.get_outputs()
        classes = self.config.get("num_classes")
        if len(ins) == len(outs) == 1 and ins[0].type == outs[0].type == "tensor(float)" and len(ins[0].shape) in (4, 5):
            batch, *shape = ins[0].shape
            if not isinstance(batch, int) and all(isinstance(n, int) for n in shape) and outs[0].shape[1:] == [classes]:
                return ins[0].name, tuple(shape)
        raise ZooError(f"{path} does not take batches of images and give {classes} logits for each, as its configuration has it; make it "
                       "with `eisnn-zoo export`")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Logits, float32 ``[B, classes]``, of float32 ``[B, C, H, W]`` in [0, 1] (event frames ``[B, T, C, H, W]``).

        Raises:
            ZooError: another shape than the network was exported for.
        """
        if x.shape[1:] != self.input_shape or not len(x):
            raise ZooError(f"this network takes a batch of {list(self.input_shape)}, got {list(x.shape)}")
        (logits,) = self._session.run(None, {self._input: np.ascontiguousarray(x, np.float32)})
        if logits.shape[:1] != x.shape[:1] or not np.isfinite(logits).all():
            raise ZooError(f"{self.path} answers with what are no logits: make it anew with `eisnn-zoo export`")
        return logits


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
