"""What `eisnn-zoo benchmark` times: one network in one way of computing it, opened the same here and in a process of its own.

Run as ``python -m eisnn_zoo.benchmarking.contenders`` it opens the one that it is told of, cold, and prints the seconds from the start of
the process to the first answer, and the most memory that the process held.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from ..config import Config, parse_config
from ..errors import ZooError
from ..locating import is_onnx
from ..machine import peak_memory

BACKENDS = ("torch", "compile", "int8", "int8-compile", "onnx", "onnx-int8")
LIBRARIES = ("spikingjelly", "snntorch")
PEERS = ("literal", *LIBRARIES)
DRAWN_EXACTLY = 32  # pictures; more of them are repetitions


@dataclass(frozen=True)
class Contender:
    """In words that another process understands.

    Attributes:
        source: a path, name or address of weights; for onnx and onnx-int8 an .onnx file.
        way: one of :data:`BACKENDS` or :data:`PEERS`.
        time_steps: T; None as in the configuration.
        device: "cpu", "cuda" or "auto".
        threads: of the CPU; None leaves the choice to the backend.
        title: what to call the network.
    """

    source: str
    way: str
    time_steps: int | None = None
    device: str = "auto"
    threads: int | None = None
    title: str = ""

    def open(self) -> Runner:
        """Raises UsageError, ZooError: it cannot be had, or not on this device."""
        return _open_onnx(self) if is_onnx(self.source) else _open_torch(self)

    def cold(self, batch: int) -> dict[str, float | None]:
        """{"start_s", "memory_mb"} of a process of its own. Raises ZooError where it fails."""
        with tempfile.TemporaryDirectory() as programs:  # that were compiled here before are none of a cold process's
            env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": programs, "TRITON_CACHE_DIR": f"{programs}/triton"}
            task = json.dumps({"begun": time.time(), "batch": batch, **asdict(self)})
            done = subprocess.run([sys.executable, "-m", __name__], input=task, capture_output=True, text=True, env=env)
        if done.returncode:
            said = done.stderr.strip().splitlines()
            raise ZooError(f"{self.title}, {self.way}, batch {batch}, in a process of its own: {said[-1] if said else 'killed'}")
        return json.loads(done.stdout.splitlines()[-1])


@dataclass(frozen=True)
class Runner:
    """A contender ready to run.

    Attributes:
        config: of the network.
        time_steps: T.
        shape: of one input.
        device: that it runs on, in words.
        place: brings a batch to where it is computed, and gives a function that computes it once, to the end.
        memory: the most bytes held by its device so far; None where that cannot be known.
    """

    config: Config
    time_steps: int
    shape: tuple[int, ...]
    device: str
    place: Callable[[np.ndarray], Callable[[], object]]
    memory: Callable[[], int | None] = peak_memory

    def run(self, batch: int) -> Callable[[], object]:
        """A function that computes a batch of drawn inputs."""
        from ..inference.export import drawn_inputs

        x = drawn_inputs(self.shape, min(batch, DRAWN_EXACTLY))
        return self.place(np.resize(x, (batch, *self.shape)))


def _open_onnx(contender: Contender) -> Runner:
    from ..inference.onnx_runtime import OnnxModel

    network = OnnxModel(contender.source, contender.device, contender.threads)
    config = parse_config(network.config, contender.source)
    memory = peak_memory if network.device == "cpu" else lambda: None  # onnxruntime does not say what it holds on a GPU
    return Runner(config, network.time_steps, network.input_shape, network.device, lambda x: lambda: network(x), memory)


def _open_torch(contender: Contender) -> Runner:
    import torch

    from ..inference.torch_runtime import KINDS, fold_for, torch_device
    from ..locating import locate
    from ..precision import strict_arithmetic
    from ..weights import load_network

    device = torch_device(contender.device, KINDS)
    strict_arithmetic()
    if contender.threads:
        torch.set_num_threads(contender.threads)
    located = locate(contender.source)
    size = located.config.input_size
    network: torch.nn.Module
    if contender.way in LIBRARIES:
        from .peers import NETWORKS

        steps = contender.time_steps or located.config.time_steps
        event = located.config.event_input
        network = NETWORKS[contender.way](located.config, steps)
    else:
        ours = load_network(located, time_steps=contender.time_steps).to(device)
        steps, event = ours.time_steps, ours.event_input
        if contender.way == "literal":
            from .literal import Literal

            network = Literal(ours)
        else:
            network = fold_for(device, ours, size[1:], "compile" in contender.way, "int8" if "int8" in contender.way else "fp32")
    network = network.eval().to(device)

    def place(x: np.ndarray) -> Callable[[], object]:
        there = torch.from_numpy(x).to(device)

        def run() -> object:
            with torch.inference_mode():
                logits = network(there)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            return logits

        return run

    return Runner(located.config, steps, (steps, *size) if event else size, str(device), place, lambda: peak_memory(str(device)))


def _cold() -> None:
    task = json.load(sys.stdin)
    begun, batch = task.pop("begun"), task.pop("batch")
    opened = Contender(**task).open()
    run = opened.run(batch)
    run()
    seconds = time.time() - begun
    run()
    held = opened.memory()
    print(json.dumps({"start_s": round(seconds, 2), "memory_mb": None if held is None else round(held / 2**20)}))


if __name__ == "__main__":
    try:
        _cold()
    except ZooError as error:
        sys.exit(str(error))
