"""Small data, and training in processes of its own that start fast and can be killed."""

from __future__ import annotations

import multiprocessing
import os
import socket
from pathlib import Path

import numpy as np

SMALL = {"model": "ei_mlp2_mnist", "epochs": 2, "batch_size": 50, "lr": 2e-3}


def digits(folder: Path, train: int = 200, test: int = 50) -> Path:
    """Pictures that can be learned: each class lights its own square, the rest is noise."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, n, seed in (("train", train, 0), ("test", test, 1)):
        rng = np.random.default_rng(seed)
        y = rng.integers(0, 10, n)
        x = rng.integers(0, 100, (n, 28, 28, 1))
        for image, label in zip(x, y):
            row, column = 7 * (label // 4), 7 * (label % 4)
            image[row : row + 7, column : column + 7] += 120
        np.savez(folder / f"{split}.npz", x=x.astype(np.uint8), y=y)
    return folder


def load(dataset, root: Path, split: str, time_steps: int | None = None):
    """One split of a dataset as training takes it."""
    from eisnn_zoo.training.data import Images
    from eisnn_zoo.training.reading import read

    return Images.of(read(dataset, root, split, time_steps))


def load_folder(path: Path, channels: int, size: int):
    """One's own pictures as training takes them."""
    from eisnn_zoo.training.data import Images
    from eisnn_zoo.training.reading import read_folder

    train, valid = read_folder(path, channels, size)
    return Images.of(train), None if valid is None else Images.of(valid)


def recipe(**values):
    from eisnn_zoo.training.recipe_file import check_recipe

    return check_recipe({**SMALL, **values}, "test")


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _run(values: dict, data: Path, output: Path, options: dict, environment: dict, whole: int | None, compile: bool,
         recorded: list[int]) -> None:
    os.environ.update(environment)
    multiprocessing.set_start_method("fork", force=True)  # as in a process that was not forked itself
    import torch

    torch.set_num_threads(1)
    from eisnn_zoo.training import data as data_module
    from eisnn_zoo.training.engine import Training
    from eisnn_zoo.training.record import record

    if whole is not None:
        data_module.WHOLE = whole
    training = Training(recipe(**values), data, output, compile=compile)
    record(training, recorded)
    training.fit(**options)


def start(values: dict, data: Path, output: Path, environment: dict | None = None, whole: int | None = None,
          compile: bool = False, recorded: list[int] | None = None, **options) -> multiprocessing.Process:
    """A training process; the server it is forked from has imported everything already.

    Args:
        whole: bytes that fit into its memory, see eisnn_zoo.training.data.
        recorded: epochs to record.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["eisnn_zoo.training.engine", "eisnn_zoo.training.plots", "torch._dynamo",
                                    "torchvision.transforms.v2"])
    process = context.Process(target=_run, args=(values, data, output, options, environment or {}, whole, compile,
                                                 recorded or []))
    process.start()
    return process


def run_two(values: dict, data: Path, output: Path, **options) -> None:
    """Trains in two processes that know of each other, as torchrun starts them. options: as of :func:`start`."""
    port = free_port()
    processes = [start(values, data, output, {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
                                              "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}, **options) for rank in range(2)]
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes] == [0, 0]


def weights(run: Path, name: str = "last") -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(run / name / "model.safetensors")


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)
