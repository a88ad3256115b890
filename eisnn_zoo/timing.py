"""Timing several ways to do the same, fairly: in turn, in one process, after a warm-up."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np

Key = TypeVar("Key")


def alternate(runs: Mapping[Key, Callable[[], object]], rounds: int, seconds: float = 0.2,
              clock: Callable[[], float] = time.perf_counter) -> dict[Key, np.ndarray]:
    """Times of single calls, by name.

    In every round each run is called as often as fits into ``seconds``, at least once; the order is reversed from round to
    round, so that a machine that slows down or speeds up favours none.

    Args:
        clock: ``time.perf_counter``; ``time.process_time`` counts this process's work alone, on one thread the same on an
            idle machine, and fair on a busy one.
    """
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(rounds):
        for name, run in list(runs.items())[:: 1 if i % 2 == 0 else -1]:
            run()  # brings its weights back into the cache
            begun = clock()
            while True:
                start = clock()
                run()
                end = clock()
                times[name].append(end - start)
                if end - begun >= seconds:
                    break
    return {name: np.array(t) for name, t in times.items()}


def convolution_peak(repeats: int = 5) -> float:
    """This machine's best fp32 convolution, in operations a second (a multiply-add is two), on torch's threads."""
    import torch
    import torch.nn.functional as F

    best = 0.0
    with torch.inference_mode():
        for n, c, o, side in ((16, 64, 160, 16), (32, 128, 320, 8), (4, 64, 80, 32)):
            x = torch.rand(n, c, side, side).contiguous(memory_format=torch.channels_last)
            w = torch.rand(o, c, 3, 3).contiguous(memory_format=torch.channels_last)
            times = alternate({"": lambda x=x, w=w: F.conv2d(x, w, None, 1, 1)}, repeats, 0.02, time.process_time)[""]
            best = max(best, 2 * n * c * o * 9 * side * side / float(times.min()) / max(1, torch.get_num_threads()))
    return best * torch.get_num_threads()


def machine() -> dict[str, str]:
    """What a measured time depends on: processor, cores, date and versions."""
    from importlib.metadata import PackageNotFoundError, version

    def of(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "-"

    return {"date": time.strftime("%Y-%m-%d"), "processor": processor(), "cores": str(os.cpu_count()), "python": platform.python_version(),
            **{package: of(package) for package in ("torch", "onnxruntime", "numpy")}}


def processor() -> str:
    """Its name, as well as the operating system tells it."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as f:  # only Linux has that file
        name = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), name)
    return name
