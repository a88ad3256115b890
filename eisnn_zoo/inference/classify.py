"""Images in, ranked classes out: one stream for every backend, constant in memory however many images there are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..config import Config
from ..errors import Damaged
from .events import read_recording
from .images import open_image, preprocess
from .inputs import content

Network = Callable[[np.ndarray], "np.ndarray | tuple[np.ndarray, np.ndarray]"]
"""float32 ``[B, C, H, W]`` (or frames ``[B, T, C, H, W]``) to logits ``[B, classes]``, or to these and the steps taken ``[B]``."""


@dataclass(frozen=True)
class Prediction:
    """One input's result: (label, probability) from the most probable down, or the reason why there is none.

    Attributes:
        steps: time steps taken.
    """

    name: str
    top: tuple[tuple[str, float], ...] = ()
    error: str = ""
    steps: int = 0


def read_input(name: str, config: Config, time_steps: int, source: str | bytes | None = None) -> np.ndarray:
    """The array for one input: pixels ``[C, H, W]``, or the frames ``[T, C, H, W]`` of a recording of events.

    Args:
        source: its :func:`~eisnn_zoo.inference.inputs.content`, where that is known.
    Raises:
        Damaged: it cannot be read, or is no recording where the network takes events.
    """
    if not config.event_input:
        shown = "stdin" if name == "-" else name
        return preprocess(open_image(content(name) if source is None else source, shown), config.input_size, shown)
    return read_recording(name, config, time_steps)


def classify(names: Iterable[str], network: Network, config: Config, time_steps: int, topk: int = 5, batch_size: int = 32,
             workers: int = 4) -> Iterator[Prediction]:
    """Predictions in the order of names. Files are decoded in threads, at most two batches ahead."""
    waiting: deque[tuple[str, Future]] = deque()
    stream = iter(names)
    with ThreadPoolExecutor(workers) as pool:
        try:
            while True:
                while len(waiting) < 2 * batch_size and (name := next(stream, None)) is not None:
                    source = content(name) if name == "-" else None  # here: a thread that waits for stdin cannot be interrupted
                    waiting.append((name, pool.submit(read_input, name, config, time_steps, source)))
                if not waiting:
                    return
                yield from _batch([waiting.popleft() for _ in range(min(batch_size, len(waiting)))], network, config, time_steps, topk)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _batch(inputs: list[tuple[str, Future]], network: Network, config: Config, time_steps: int,
           topk: int) -> Iterator[Prediction]:
    arrays, errors = {}, {}
    for i, (_, future) in enumerate(inputs):
        try:
            arrays[i] = future.result()
        except Damaged as error:
            errors[i] = str(error)
    answer = network(np.stack(list(arrays.values()))) if arrays else np.empty((0, len(config.label_names)))
    logits, steps = answer if isinstance(answer, tuple) else (answer, [time_steps] * len(answer))
    answers = dict(zip(arrays, zip(softmax(logits), steps)))
    for i, (name, _) in enumerate(inputs):
        if i in errors:
            yield Prediction(name, error=errors[i])
        else:
            probabilities, taken = answers[i]
            best = np.argsort(-probabilities, kind="stable")[:topk]
            top = tuple((config.label_names[k], float(probabilities[k])) for k in best)
            yield Prediction(name, top, steps=int(taken))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis, in float64."""
    z = logits.astype(np.float64)
    z = np.exp(z - z.max(-1, keepdims=True))
    return z / z.sum(-1, keepdims=True)
