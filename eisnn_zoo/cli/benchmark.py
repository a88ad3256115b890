"""eisnn-zoo benchmark: images a second and latency of a network, by backend and batch size."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from .output import Format, note, render

if TYPE_CHECKING:
    import numpy as np

    from ..networks import SpikingNet

EPILOG = """[bold]Examples[/bold]

  eisnn-zoo benchmark ei_vgg8_cifar10

  eisnn-zoo benchmark ei_vgg8_cifar10 bn_vgg8_cifar10 --backend torch,onnx,int8 --batch 1,32 --threads 1

  eisnn-zoo benchmark ei_resnet18 --output speed/
"""
BACKENDS = ("torch", "compile", "onnx", "int8")
COLUMNS = {"model": "model", "backend": "backend", "batch": "batch", "images_per_s": "images/s", "p25": "p25", "p75": "p75",
           "p50_ms": "p50 (ms)", "p90_ms": "p90 (ms)", "p99_ms": "p99 (ms)", "start_s": "start (s)", "peak_share": "of peak"}
Run = Callable[["np.ndarray"], object]


def register(app: typer.Typer) -> None:
    app.command("benchmark", epilog=EPILOG)(benchmark)


def benchmark(
    models: Annotated[list[str], typer.Argument(
        metavar="MODEL...", help="Names, addresses or paths. A name for which there are no weights runs untrained.")],
    backend: Annotated[str, typer.Option("--backend", help=f"Some of {','.join(BACKENDS)}.")] = "torch",
    batch: Annotated[str, typer.Option("--batch", "-b", help="Batch sizes.")] = "1,32",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Of the CPU. Default: the backends' own choice.")] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Each takes every network and backend in turn.")] = 5,
    time_steps: Annotated[int | None, typer.Option("--time-steps", "-T", min=1, help="Default: as trained.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for benchmark.csv and benchmark.png.")] = None,
    format: Annotated[Format, typer.Option("--format", "-f")] = Format.table,
) -> None:
    """Time networks on this machine's CPU, in turn, after a warm-up. "of peak" is the share of its best convolution rate."""
    import torch

    from ..count import count
    from ..timing import alternate, convolution_peak, machine

    backends, batches = _choices(backend), _sizes(batch)
    if threads:
        torch.set_num_threads(threads)
    peak = convolution_peak()
    about = {**machine(), "threads": threads or torch.get_num_threads(), "conv_peak_gflops": round(peak / 1e9)}
    note("  ".join(f"{key} {value}" for key, value in about.items()))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in batches:
            runs: dict[tuple[str, str], Callable] = {}
            started, networks = {}, {}
            for spec in models:
                name, network, shape = _network(spec, time_steps)
                networks[name] = network
                x = _inputs(network, size, shape)
                for way in backends:
                    run, started[name, way] = _start(network, way, shape, threads, Path(folder), x)
                    runs[name, way] = lambda run=run, x=x: run(x)
            note(f"batch {size}: {len(runs)} to time")
            times = alternate(runs, rounds)
            for name, way in runs:
                network = networks[name]
                operations = 2 * count(_catalog_entry(name)).macs(network.time_steps)
                figures = _figures(times[name, way], size)
                rows.append({"model": name, "backend": way, "batch": size, **figures, "start_s": round(started[name, way], 2),
                             "peak_share": f"{100 * operations * figures['images_per_s'] / peak:.0f} %"})
    print(render(rows, format, COLUMNS))
    if output:
        _save(output, [{**row, **about} for row in rows])


def _choices(text: str) -> list[str]:
    chosen = [part.strip() for part in text.split(",") if part.strip()]
    for part in chosen:
        if part not in BACKENDS:
            raise UsageError(f"--backend {part}: choose among {', '.join(BACKENDS)}")
    if not chosen:
        raise UsageError(f"--backend: name one or more of {', '.join(BACKENDS)}")
    return chosen


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise UsageError(f"--batch {text}: give sizes from 1 up, as in --batch 1,32")
    return sizes


def _catalog_entry(name: str):
    from ..catalog import MODELS

    return MODELS[name.split(".")[0]]


def _network(spec: str, time_steps: int | None) -> tuple[str, SpikingNet, tuple[int, int, int]]:
    """(name, network, shape of an image); a catalog name for which no weights are here runs untrained: speed is the same."""
    from ..catalog import MODELS
    from ..networks import build
    from ..weights import load_network, locate, weights_of

    options = {} if time_steps is None else {"time_steps": time_steps}
    if spec in MODELS and not any(w.local for w in weights_of(spec)):
        network = build(spec, **options).eval()
        network.mark_initialised()
        return spec, network, MODELS[spec].input_size
    located = locate(spec)
    return located.config.name, load_network(located, **options), located.config.input_size


def _inputs(network: SpikingNet, batch: int, shape: tuple[int, int, int]) -> np.ndarray:
    from ..export import drawn_inputs

    return drawn_inputs((network.time_steps, *shape) if network.event_input else shape, batch)


def _start(network: SpikingNet, way: str, shape: tuple[int, int, int], threads: int | None, folder: Path,
           x: np.ndarray) -> tuple[Run, float]:
    """A backend made ready, and the seconds until its first answer, from the network in memory or its file on."""
    import torch

    if way in ("onnx", "int8"):
        from ..onnx_runtime import import_onnxruntime, session_options

        path = _onnx_file(network, way, shape, folder)
        onnxruntime = import_onnxruntime()
        begun = time.perf_counter()
        session = onnxruntime.InferenceSession(str(path), session_options(onnxruntime, threads), providers=["CPUExecutionProvider"])
        session.run(None, {"input": x})
        return lambda x: session.run(None, {"input": x}), time.perf_counter() - begun

    from ..folding import fold

    begun = time.perf_counter()
    folded = fold(network, shape[1:], compile=way == "compile")

    def run(x: np.ndarray) -> object:
        with torch.inference_mode():
            return folded(torch.from_numpy(x)).numpy()

    run(x)
    return run, time.perf_counter() - begun


def _onnx_file(network: SpikingNet, way: str, shape: tuple[int, int, int], folder: Path) -> Path:
    from ..export import onnx_modules, quantise, trace

    path = folder / f"{id(network)}.{way}.onnx"
    if way == "int8" and _is_mlp(network):
        raise UsageError("--backend int8 is for convolutional networks")
    onnx = onnx_modules()
    model = trace(network, shape, 20, half=False)
    if way == "int8":
        quantise(model)
    onnx.save(model, path)
    return path


def _is_mlp(network: SpikingNet) -> bool:
    from ..networks import SpikingMLP

    return isinstance(network, SpikingMLP)


def _figures(times, batch: int) -> dict:
    import numpy as np

    p25, p50, p75, p90, p99 = np.percentile(times, [25, 50, 75, 90, 99])
    return {"images_per_s": round(batch / p50, 1), "p25": round(batch / p75, 1), "p75": round(batch / p25, 1),
            "p50_ms": round(1e3 * p50, 2), "p90_ms": round(1e3 * p90, 2), "p99_ms": round(1e3 * p99, 2)}


def _save(folder: Path, rows: list[dict]) -> None:
    from ..files import write_atomic
    from .output import to_csv

    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "benchmark.csv", to_csv(rows))
    note(f"wrote {folder / 'benchmark.csv'}")
    try:
        import matplotlib
    except ImportError:
        note("no picture: it needs matplotlib, pip install 'eisnn-zoo[train]'")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    labels = [f"{row['model']}\n{row['backend']}, batch {row['batch']}" for row in rows]
    figure, axes = plt.subplots(figsize=(7, 0.6 * len(rows) + 1), layout="constrained")
    middle = [row["images_per_s"] for row in rows]
    spread = [[m - row["p25"] for m, row in zip(middle, rows)], [row["p75"] - m for m, row in zip(middle, rows)]]
    axes.barh(labels, middle, xerr=spread, color="#4477aa", capsize=3)
    axes.invert_yaxis()
    axes.set_xlabel(f"images a second, median and quartiles ({rows[0]['threads']} threads, {rows[0]['processor']})", fontsize=8)
    figure.savefig(folder / "benchmark.png.tmp", dpi=150, format="png")
    plt.close(figure)
    (folder / "benchmark.png.tmp").replace(folder / "benchmark.png")
    note(f"wrote {folder / 'benchmark.png'}")
