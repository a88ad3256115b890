"""Timing several ways to do the same, fairly: in turn, in one process, after a warm-up. And the most a machine can do."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np

Key = TypeVar("Key")
Clock = Callable[[], float]


def alternate(runs: Mapping[Key, Callable[[], object]], rounds: int, seconds: float = 0.2,
              clock: Clock = time.perf_counter) -> dict[Key, np.ndarray]:
    """Times of single calls, by name.

    In every round each run is called as often as fits into ``seconds``, at least once; the order is reversed from round to
    round, so that a machine that slows down or speeds up favours none.

    Args:
        clock: see :func:`fair_clock`.
    """
    for run in runs.values():
        run()
    times: dict[Key, list[float]] = {name: [] for name in runs}
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


def fair_clock(threads: int | None, device: str) -> Clock:
    """On one thread of a CPU this process's own processor time: the same as the time on the wall where nothing else runs, and
    spoilt less where something does. The time on the wall otherwise."""
    return time.process_time if threads == 1 and device == "cpu" else time.perf_counter


def convolution_peak(device: str = "cpu", clock: Clock = time.perf_counter) -> float:
    """This machine's best fp32 convolution, in operations a second (a multiply-add is two), on torch's threads."""
    import torch
    import torch.nn.functional as F

    def timed(run: Callable[[], object]) -> object:
        out = run()
        if device != "cpu":
            torch.cuda.synchronize(device)
        return out

    best, many = 0.0, 1 if device == "cpu" else 32
    with torch.inference_mode():
        for n, c, o, side in ((16, 64, 160, 16), (32, 128, 320, 8), (4, 64, 80, 32)):
            x = torch.rand(n * many, c, side, side, device=device).contiguous(memory_format=torch.channels_last)
            w = torch.rand(o, c, 3, 3, device=device).contiguous(memory_format=torch.channels_last)
            times = alternate({"": lambda x=x, w=w: timed(lambda: F.conv2d(x, w, None, 1, 1))}, 5, 0.02, clock)[""]
            best = max(best, 2 * len(x) * c * o * 9 * side * side / float(times.min()))
    return best


def product_peak(clock: Clock = time.perf_counter) -> float:
    """The same of numpy's matrix product, on its threads, where there is to be no torch."""
    a, b = np.ones((2, 512, 512), np.float32)
    out = np.empty_like(a)
    return 2 * 512**3 / float(alternate({"": lambda: np.matmul(a, b, out=out)}, 5, 0.02, clock)[""].min())
