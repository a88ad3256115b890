"""How fast is the forward? The literal formulation against ours, alternating in one process on one thread.

    python benchmarks/forward.py                      all: E-I VGG-8 and ResNet-18, batch 32 and 1
    python benchmarks/forward.py --skip compiled      without torch.compile, which takes minutes
    python benchmarks/forward.py --only ei_vgg8 --rounds 3

Writes benchmarks/results/forward.csv: images a second (median over rounds), the ratio to the literal formulation, and the
share of the floor, the time that the folded network's operations would take at this machine's best convolution rate.
Times are this process's own processor time, so that a busy machine spoils them less.
"""

# ruff: noqa: E402  threads are set before torch is imported
from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))

import numpy as np
import torch
from literal import Literal

from eisnn_zoo import initialize
from eisnn_zoo.catalog import MODELS
from eisnn_zoo.count import count
from eisnn_zoo.folding import fold
from eisnn_zoo.networks import SpikingNet, build
from eisnn_zoo.timing import alternate, convolution_peak, machine

CASES = (("ei_vgg8", 32), ("ei_vgg8", 1), ("ei_resnet18", 32), ("ei_resnet18", 1))
WAYS = ("literal", "eager", "compiled", "onnx", "int8")


def pictures(n: int) -> torch.Tensor:
    """Smooth random pictures with a black corner, as Cutout and real photographs have them."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((n, 3, 6, 6), np.float32))
    x = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic").clamp(0, 1)
    x[:, :, :10, :10] = 0
    return x


def onnx_files(network: SpikingNet, folder: Path) -> dict[str, Path]:
    """The network as ONNX in float32 and int8; empty where onnx is not installed."""
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError:
        return {}
    from eisnn_zoo.export import quantise, trace

    files = {name: folder / f"{name}.onnx" for name in ("onnx", "int8")}
    model = trace(network, (3, 32, 32), 20, half=False)
    onnx.save(model, files["onnx"])
    quantise(model)
    onnx.save(model, files["int8"])
    return files


def session(path: Path):
    import onnxruntime

    from eisnn_zoo.onnx_runtime import session_options

    run = onnxruntime.InferenceSession(str(path), session_options(onnxruntime, 1), providers=["CPUExecutionProvider"])
    return lambda x: run.run(None, {"input": x.numpy()})


def measure(name: str, batch: int, rounds: int, skip: list[str], peak: float, folder: Path) -> list[dict]:
    network = build(name)
    initialize(network, pictures(64), 2025)
    x = pictures(batch)
    functions = {"literal": Literal(network), "eager": fold(network, (32, 32))}
    if "compiled" not in skip:
        functions["compiled"] = fold(network, (32, 32), compile=True)
    if not {"onnx", "int8"} <= set(skip):
        functions |= {way: session(path) for way, path in onnx_files(network, folder).items()}
    runs = {way: (lambda f=functions[way]: f(x)) for way in WAYS if way in functions and way not in skip}
    with torch.inference_mode():
        times = alternate(runs, rounds, 0.3, time.process_time)
    medians = {way: float(np.median(t)) for way, t in times.items()}
    operations = 2 * count(MODELS[name]).macs(network.time_steps)
    rows = []
    for way, median in medians.items():
        low, high = np.percentile(times[way], [25, 75])
        rows.append({"model": name, "batch": batch, "way": way, "images_per_s": round(batch / median, 1),
                     "ms_p25": round(1e3 * low, 2), "ms_median": round(1e3 * median, 2), "ms_p75": round(1e3 * high, 2),
                     "times_literal": round(medians["literal"] / median, 2),
                     "floor_share": round(operations * batch / peak / median, 2)})
        print("  ".join(f"{k}={v}" for k, v in rows[-1].items()), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="models")
    parser.add_argument("--batch", nargs="*", type=int, default=[], help="batch sizes")
    parser.add_argument("--skip", nargs="*", default=[], choices=WAYS[2:])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "forward.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    peak = convolution_peak()
    about = {**machine(), "threads": 1, "conv_peak_gflops": round(peak / 1e9)}
    print("  ".join(f"{k}={v}" for k, v in about.items()), flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, batch in CASES:
            if (not args.only or name in args.only) and (not args.batch or batch in args.batch):
                rows += measure(name, batch, args.rounds, args.skip, peak, Path(folder))
    args.output.parent.mkdir(exist_ok=True)
    with args.output.open("w", newline="") as f:
        writer = csv.DictWriter(f, [*rows[0], *about])
        writer.writeheader()
        writer.writerows({**row, **about} for row in rows)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
