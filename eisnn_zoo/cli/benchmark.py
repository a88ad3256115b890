"""eisnn-zoo benchmark: images a second, latency, memory and start-up of a network, by backend and batch size."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from .options import Device, Steps
from .output import Format, check_folder, note, render

if TYPE_CHECKING:
    import numpy as np

    from ..benchmarking.contenders import Contender, Runner

EPILOG = """[bold]Examples[/bold]

  eisnn-zoo benchmark ei_vgg8_cifar10

  eisnn-zoo benchmark ei_vgg8_cifar10 bn_vgg8_cifar10 --backend torch,compile --batch 1,32 --threads 1

  eisnn-zoo benchmark ei_resnet18 --peers --output speed/

  eisnn-zoo benchmark vgg8.onnx
"""
COLUMNS = {"model": "model", "backend": "backend", "device": "device", "batch": "batch", "images_per_s": "images/s",
           "p25": "p25", "p75": "p75", "p50_ms": "p50 (ms)", "p90_ms": "p90", "p99_ms": "p99",
           "memory_mb": "memory (MB)", "start_s": "start (s)", "peak_share": "of peak", "times_literal": "x literal"}


def register(app: typer.Typer) -> None:
    app.command("benchmark", epilog=EPILOG)(benchmark)


def benchmark(
    models: Annotated[list[str], typer.Argument(
        metavar="MODEL", help="Names, addresses, paths or .onnx files. A name for which there are no weights here runs untrained.")],
    backend: Annotated[str | None, typer.Option(
        "--backend", help="Some of torch, compile, int8, int8-compile (8-bit weights, by torch on a CPU), onnx, onnx-int8. Default: torch; "
                          "of an .onnx file onnx.", show_default=False)] = None,
    batch: Annotated[str, typer.Option("--batch", "--batch-size", "-b", help="Batch sizes.")] = "1,32",
    device: Device = "auto",
    threads: Annotated[int | None, typer.Option(
        "--threads", min=1, max=1024, help="Of the CPU. Default: the backends' own choice.")] = None,
    peers: Annotated[bool, typer.Option(
        "--peers", help="Beside them: the paper's formulas written down plainly (literal), and networks of this shape in "
                        "spikingjelly and snnTorch.")] = False,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Each takes every network and backend in turn.")] = 5,
    time_steps: Steps = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for benchmark.csv and benchmark.png.")] = None,
    format: Annotated[Format, typer.Option("--format", "-f")] = Format.table,
) -> None:
    """Time networks on this machine, in turn, after a warm-up.

    Memory (the most held) and start-up (until the first answer) are those of a
    process of its own for every row. "of peak" is the share of the machine's best
    measured rate of fp32 convolutions (without torch: of matrix products). On one
    CPU thread times are the process's own, which other work spoils less.
    """
    if threads:  # of libraries that are loaded from now on, and of the processes started below
        os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)))
    from ..benchmarking.timing import alternate, fair_clock

    sizes, ways = _sizes(batch), _ways(backend)
    check_folder(output)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        contenders = _told_apart({spec: _contenders(spec, ways, peers, time_steps, device, threads, Path(folder))
                                   for spec in dict.fromkeys(models)})
        opened = [contender.open() for contender in contenders]
        place = next((o.device for o in opened if o.device != "cpu"), "cpu")
        clock = fair_clock(threads, place)
        peak, about = _machine(contenders, place, threads, clock)
        places = ", ".join(dict.fromkeys(o.device for o in opened))
        note("  ".join(f"{key} {value}" for key, value in {**about, "device": places}.items()))
        for size in sizes:
            note(f"batch {size}: {len(opened)} to time")
            times = alternate({i: o.run(size) for i, o in enumerate(opened)}, rounds, clock=clock)
            rows += [{**_row(contender, o, size, times[i], peak if o.device == place else None), **contender.cold(size)}
                     for i, (contender, o) in enumerate(zip(contenders, opened))]
    if peers:
        _compare(rows)
    hidden = {"device"} if places == "cpu" else set()
    print(render(rows, format, {key: title for key, title in COLUMNS.items() if key in rows[0] and key not in hidden}))
    if output:
        _save(output, [{**row, **about} for row in rows])


# ---- what is timed -----------------------------------------------------------------------------------------------------


def _ways(text: str | None) -> list[str]:
    """The backends asked for; none where it is left to the model."""
    from ..benchmarking.contenders import BACKENDS

    chosen = [part.strip() for part in text.split(",") if part.strip()] if text is not None else []
    for part in chosen:
        if part not in BACKENDS:
            raise UsageError(f"--backend {part}: choose among {', '.join(BACKENDS)}")
    if text is not None and not chosen:
        raise UsageError(f"--backend: name one or more of {', '.join(BACKENDS)}")
    return chosen


def _sizes(text: str) -> list[int]:
    try:
        sizes = list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise UsageError(f"--batch {text}: give sizes from 1 up, as in --batch 1,32")
    return sizes


def _contenders(spec: str, ways: list[str], peers: bool, time_steps: int | None, device: str, threads: int | None,
                folder: Path) -> list[Contender]:
    """Everything to time of one model."""
    from ..benchmarking.contenders import Contender
    from ..catalog import MODELS
    from ..locating import is_onnx, locate
    from ..table import weights_of

    if is_onnx(spec):
        return [_file(spec, ways, peers, time_steps, device, threads)]
    source, untrained = spec, spec in MODELS and not any(w.local for w in weights_of(spec))
    if untrained:
        source = _untrained(spec, folder)
    config = locate(source).config
    title = f"{spec} (untrained)" if untrained else config.name
    contenders = []
    for way in ways or ["torch"]:
        path = _onnx_file(source, way, time_steps, folder) if way.startswith("onnx") else source
        contenders.append(Contender(path, way, time_steps, device, threads, title))
    for peer in _peers(config.model.kind) if peers else []:
        contenders.append(Contender(source, peer, time_steps, device, threads, title))
    return contenders


def _told_apart(found: dict[str, list[Contender]]) -> list[Contender]:
    """All contenders; where networks share a name, as two runs of one architecture do, each also says how it was given."""
    shared = Counter(own[0].title for own in found.values())
    return [replace(c, title=f"{c.title} ({spec})") if shared[c.title] > 1 else c for spec, own in found.items() for c in own]


def _file(path: str, ways: list[str], peers: bool, time_steps: int | None, device: str, threads: int | None) -> Contender:
    from ..benchmarking.contenders import Contender
    from ..inference.backends import check_steps
    from ..inference.onnx_runtime import OnnxModel

    others = [way for way in ways if way != "onnx"] or (["--peers"] if peers else [])
    if others:
        raise UsageError(f"{path} is an ONNX file, which onnxruntime runs as it is: for {others[0]} name the weights")
    network = OnnxModel(path, device, threads)
    check_steps(network, time_steps or network.time_steps)
    way = "onnx" if network.precision == "fp32" else f"onnx-{network.precision}"
    return Contender(path, way, None, device, threads, network.metadata.get("source", path))


def _untrained(name: str, folder: Path) -> str:
    """A folder with weights for a name without: E-I Init on drawn inputs, or torch's own start."""
    import torch

    from .. import initialize
    from ..config import base_config, find_model
    from ..inference.export import drawn_inputs
    from ..networks import build
    from ..weights import save_network

    config = base_config(find_model(name))
    torch.manual_seed(0)
    network = build(name)
    if network.kind == "ei":
        shape = (network.time_steps, *config.input_size) if network.event_input else config.input_size
        initialize(network, torch.from_numpy(drawn_inputs(shape, 32)), 0)
    place = folder / name
    place.mkdir()
    save_network(place, network.state_dict(), config)
    return str(place)


def _onnx_file(source: str, way: str, time_steps: int | None, folder: Path) -> str:
    """The file beside the weights where there is one that serves, otherwise a fresh export."""
    from ..inference.backends import onnx_beside
    from ..inference.export import export
    from ..locating import locate
    from ..table import ONNX

    located = locate(source)
    beside = located.path.parent / ONNX
    if way == "onnx" and time_steps is None and beside.is_file():
        return str(onnx_beside(located).path)
    path = Path(tempfile.mkdtemp(dir=folder)) / f"{located.config.name}.{way}.onnx"  # another network may have this name
    export(located, path, "fp32" if way == "onnx" else "int8", time_steps)
    return str(path)


def _peers(kind: str) -> list[str]:
    from ..benchmarking.contenders import LIBRARIES

    found = ["literal"] if kind == "ei" else []
    for name in LIBRARIES:
        if find_spec(name):
            found.append(name)
        else:
            note(f"{name} is not installed and not timed: pip install {name}")
    return found


# ---- figures -----------------------------------------------------------------------------------------------------------


def _machine(contenders: list[Contender], device: str, threads: int | None, clock) -> tuple[float | None, dict]:
    """(the best rate of this device in operations a second, what the times depend on)."""
    from ..benchmarking.contenders import LIBRARIES
    from ..benchmarking.timing import convolution_peak, product_peak
    from ..locating import is_onnx
    from ..machine import device_name, machine

    kinds, peak = {c.way for c in contenders}, None
    packages = ["onnxruntime", "numpy", *(name for name in LIBRARIES if name in kinds)]
    if any(not is_onnx(c.source) for c in contenders):
        import torch

        packages.insert(0, "torch")
        count, peak = torch.get_num_threads(), convolution_peak(device, clock)
        unit = "conv_peak_gflops"
    else:
        count, unit = threads or os.cpu_count() or 1, "product_peak_gflops"
        peak = product_peak(clock) if device == "cpu" else None
    about = {**machine(packages), "threads": count}
    if "torch" in packages:
        about["processor"] = device_name(device)
    return peak, {**about, unit: round(peak / 1e9)} if peak else about


def _row(contender: Contender, opened: Runner, batch: int, times: np.ndarray, peak: float | None) -> dict:
    import numpy as np

    from ..benchmarking.contenders import PEERS
    from ..count import count

    p25, p50, p75, p90, p99 = np.percentile(times, [25, 50, 75, 90, 99])
    config = opened.config
    operations = 2 * count(config.model, config.input_size[1], **config.options).macs(opened.time_steps)
    comparable = peak and contender.way not in PEERS  # they do other operations
    return {"model": contender.title, "backend": contender.way, "device": opened.device, "batch": batch,
            "images_per_s": round(batch / p50, 1), "p25": round(batch / p75, 1), "p75": round(batch / p25, 1),
            "p50_ms": round(1e3 * p50, 2), "p90_ms": round(1e3 * p90, 2), "p99_ms": round(1e3 * p99, 2),
            "peak_share": round(operations * batch / p50 / peak, 2) if comparable else None}


def _compare(rows: list[dict]) -> None:
    """Adds to every row how many times as fast as the literal formulation it is."""
    literal = {(row["model"], row["batch"]): row["p50_ms"] for row in rows if row["backend"] == "literal"}
    for row in rows:
        base = literal.get((row["model"], row["batch"]))
        row["times_literal"] = base and round(base / row["p50_ms"], 2)


def _save(folder: Path, rows: list[dict]) -> None:
    from ..files import to_csv, write_atomic

    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "benchmark.csv", to_csv(rows))
    note(f"wrote {folder / 'benchmark.csv'}")
    if find_spec("matplotlib") is None:
        note('no picture: it needs matplotlib, pip install "eisnn-zoo[train]"')
        return
    from ..benchmarking.picture import speed

    speed(rows, folder / "benchmark.png")
    note(f"wrote {folder / 'benchmark.png'}")
