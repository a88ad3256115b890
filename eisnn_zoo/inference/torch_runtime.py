"""Running a network with torch, as a function of arrays: folded, on a CPU or GPU, compiled on request."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from ..compiling import check_compiler
from ..errors import UsageError
from ..locating import Located
from ..networks import SpikingNet
from ..precision import strict_arithmetic
from ..weights import load_network
from .anytime import early_exit
from .folding import fold
from .stepping import NetworkSteps, stepwise

_logger = logging.getLogger("eisnn_zoo")

PRECISIONS = ("fp32", "int8")
KINDS = ("cpu", "cuda")  # of devices on which all that the zoo does was written to run
_stepping = threading.Lock()  # a network that takes single steps holds one batch's membranes


def torch_device(name: str = "auto", kinds: Sequence[str] = ()) -> torch.device:
    """The device of a name: "cpu", "cuda", "cuda:1" ...; "auto" is a GPU where torch finds one. Raises UsageError.

    Args:
        kinds: those that can do what is asked; by default, whatever torch has here.
    """
    if choose := name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    elif name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: torch finds no GPU here; install a CUDA build of torch, or use --device cpu")
    reason = _refusal(name)
    if reason and choose:
        _logger.warning("torch finds a GPU that this build of it cannot use, and takes the CPU (%s)", reason)
        name = "cpu"
    elif reason:
        said = f"torch cannot use this GPU ({reason}): install the build for it, or" if name == "cuda" else "torch has no such device here:"
        raise UsageError(f"--device {name}: {said} use --device cpu")
    device = torch.device(name)
    if kinds and device.type not in kinds:
        raise UsageError(f"--device {name}: this is done on {' or '.join(kinds)} alone")
    return device


def _refusal(name: str) -> str:
    """Why torch cannot use a device of this name, in one line; "" where it can."""
    if name == "cuda" and "WORLD_SIZE" in os.environ:  # each of several processes would open the first GPU here, and then choose its own
        return ""
    try:
        torch.zeros(1, device=torch.device(name)).cpu()  # "meta" takes tensors and gives none back
    except (RuntimeError, AssertionError) as error:
        return f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return ""


def fold_for(device: torch.device, network: SpikingNet, size: tuple[int, int], compile: bool, precision: str) -> SpikingNet:
    """The network folded for images of a size, see :func:`~eisnn_zoo.inference.folding.fold`.

    Args:
        precision: "fp32" or "int8".
    Raises:
        UsageError: no such precision, or not on this device or for this network; no compiler.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision}: torch computes in {' or '.join(PRECISIONS)} here")
    if compile:
        check_compiler(device.type)
    try:
        return fold(network, size, compile, precision == "int8")
    except ValueError as error:
        raise UsageError(f"{'int8' if precision == 'int8' else 'this network'} cannot be used here: {error}") from error


class TorchModel:
    """A network's weights, as a function of arrays.

    Args:
        located: from :func:`~eisnn_zoo.locating.locate`.
        device: see :func:`torch_device`.
        time_steps: T; None as in the configuration.
        compile: with torch.compile, at the first call of each batch size.
        precision: "fp32", or "int8": weights of 8 bits, a CPU's, see :func:`fold_for`.

    Attributes:
        device: the one that it runs on, in words.
        time_steps: T.
        precision: as given.

    Raises:
        UsageError: a device that is not there, or see :func:`fold_for`. ZooError: weights that cannot be used.
    """

    def __init__(self, located: Located, device: str = "auto", time_steps: int | None = None, compile: bool = False,
                 precision: str = "fp32"):
        self._place = torch_device(device)
        strict_arithmetic()
        network = load_network(located, time_steps=time_steps).to(self._place)
        self._network = fold_for(self._place, network, located.config.input_size[1:], compile, precision)
        self.device, self.time_steps, self.precision = str(self._place), network.time_steps, precision

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Logits, float32 ``[B, classes]``, of float32 ``[B, C, H, W]`` in [0, 1] (event frames ``[B, T, C, H, W]``)."""
        with torch.inference_mode():
            return self._network(self._there(x)).float().cpu().numpy()

    def evidence(self, x: np.ndarray) -> np.ndarray:
        """The logits of every single step, ``[T, B, classes]``; inputs as above."""
        with torch.inference_mode():
            return self._network.forward_evidence(self._there(x)).float().cpu().numpy()

    def early_exit(self, x: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        """See :func:`~eisnn_zoo.inference.anytime.early_exit`: samples that are sure take no further steps. Inputs as above."""
        with _stepping:
            return early_exit(NetworkSteps(self._stepwise, self._there(x), self.time_steps), confidence)

    @cached_property
    def _stepwise(self) -> SpikingNet:
        return stepwise(self._network)

    def _there(self, x: np.ndarray) -> torch.Tensor:
        images = torch.from_numpy(np.require(x, np.float32, ["C", "W"])).to(self._place)
        return images.contiguous(memory_format=torch.channels_last) if images.dim() == 4 else images
