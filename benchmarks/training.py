"""How fast is a training step? The literal formulation against ours, in turn in one process: forward, backward, optimizer.

    python benchmarks/training.py                                one CPU thread: E-I VGG-8 and ResNet-18, batch 32
    python benchmarks/training.py --device cuda                  a GPU: VGG-8 at batch 32 and 128, ResNet-18 at 128
    python benchmarks/training.py --models ei_vgg8 --rounds 3 --skip compiled "compiled bf16"

Adds to benchmarks/results/training.csv, case by case, and leaves out what already stands there for this device, threads and
version of torch (--again measures anew): milliseconds of a step, its ratio to the literal formulation's, the share of this
device's matrix products at their best (float32 or bf16, as the step computes) and the most memory that steps hold.
On one CPU thread times are processor time of the process that computes. The allocator setting of our trainer
(eisnn_zoo.training.setup.keep_memory) serves every way but "literal (default malloc)", which has a process of its own.
"""

# ruff: noqa: E402  threads are set before torch is imported
from __future__ import annotations

import argparse
import copy
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import numpy as np
import torch
import torch.nn.functional as F

from eisnn_zoo import initialize
from eisnn_zoo.benchmarking.literal import Literal
from eisnn_zoo.benchmarking.timing import alternate, fair_clock
from eisnn_zoo.catalog import MODELS
from eisnn_zoo.compiling import compile_options
from eisnn_zoo.count import count
from eisnn_zoo.ei import EISynapses
from eisnn_zoo.files import add_rows, read_rows
from eisnn_zoo.machine import device_name, machine, peak_memory
from eisnn_zoo.networks import SpikingNet, build
from eisnn_zoo.precision import strict_arithmetic
from eisnn_zoo.training.graphs import WARM, Graphs, Plain
from eisnn_zoo.training.optim import ProjectedSGD
from eisnn_zoo.training.setup import keep_memory

CASES = {"cpu": {"ei_vgg8": (32,), "ei_resnet18": (32,)}, "cuda": {"ei_vgg8": (32, 128), "ei_resnet18": (128,)}}
APART = "literal (default malloc)"
WAYS = {"cpu": (APART, "literal", "eager", "compiled", "eager bf16", "compiled bf16"),
        "cuda": ("literal", "eager", "fused", "fused bf16", "compiled bf16", "fused bf16 graphs", "compiled bf16 graphs")}
KEYS = ("model", "batch", "way", "device", "threads", "torch")  # that tell a measurement from another
Step = Callable[[], object]


def pictures(n: int) -> torch.Tensor:
    """Smooth random pictures, half of them with a black corner: zero divisors, as Cutout makes them."""
    coarse = torch.from_numpy(np.random.default_rng(0).random((n, 3, 6, 6), np.float32))
    x = F.interpolate(coarse, size=(32, 32), mode="bicubic").clamp(0, 1)
    x[::2, :, :10, :10] = 0
    return x


def initialised(name: str) -> SpikingNet:
    torch.manual_seed(0)
    network = build(name)
    initialize(network, pictures(64), 2025)
    return network


class Apart:
    """The literal formulation's step in another process, which keeps the allocator's defaults."""

    seconds = 0.0  # of its processor time, all of them

    def __init__(self, name: str, batch: int):
        arguments = [sys.executable, __file__, "--serve", "--models", name, "--batch", str(batch)]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self()  # returns when it is warm

    def __call__(self) -> None:
        print(file=self.process.stdin, flush=True)
        Apart.seconds += float(self.process.stdout.readline())

    @staticmethod
    def serve(name: str, batch: int) -> None:
        step = training_step(initialised(name), "literal", batch, "cpu")
        for _ in sys.stdin:
            start = time.process_time()
            step()
            print(time.process_time() - start, flush=True)


def training_step(network: SpikingNet, way: str, batch: int, device: str) -> Step:
    """One way of training a copy of network on one batch; a call is a step to its end, and returns the loss. It is warm already."""
    kind, bf16 = torch.device(device).type, "bf16" in way
    network = copy.deepcopy(network).to(device).train()
    network.mark_initialised()  # E-I Init would hold more than the steps
    x, y = pictures(batch).to(device), torch.arange(batch, device=device) % network.num_classes
    forward: torch.nn.Module = network
    literal = way in ("literal", APART)
    if literal:
        forward = Literal(network)
    else:
        x = x.contiguous(memory_format=torch.channels_last)
    if "compiled" in way:
        forward = torch.compile(network, **compile_options(kind))
    optimizer = ProjectedSGD(network, lr=1e-3, momentum=0.9, weight_decay=5e-4, fused=(kind == "cuda" and not literal) or None)

    def gradients(_setting: None, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        with torch.autocast(kind, torch.bfloat16, enabled=bf16):
            logits = forward(x).float()
        loss = F.cross_entropy(logits, y)
        loss.backward()
        if literal:
            for layer in network.modules():
                if isinstance(layer, EISynapses):
                    layer.ei.weight.grad.div_(layer.fan_in)
        return loss.detach()

    recorded = way.endswith("graphs")
    plain = Plain(gradients, optimizer.step)
    work = Graphs(plain, network.parameters()) if recorded else plain
    stream = torch.cuda.Stream(device) if recorded else None

    def step() -> float:
        os.environ["EISNN_ZOO_FUSED"] = "1" if "fused" in way else "0"
        with torch.cuda.stream(stream):  # of None, nothing
            loss = work.gradients(None, x, y)
            work.step()
            return loss.item()  # waits for the device

    for _ in range(WARM + 2 if recorded else 1):
        step()
    return step


def matmul_peak(device: str, dtype: torch.dtype, clock: Callable[[], float]) -> float:
    """This device's best matrix product, in operations a second (a multiply-add is two)."""
    n = 1024 if device == "cpu" else 8192
    a, b = (torch.rand(n, n, device=device).to(dtype) for _ in range(2))

    def product() -> None:
        (a @ b)[0, 0].item()

    return 2 * n**3 / float(alternate({"": product}, 5, 0.1, clock)[""].min())


def made(network: SpikingNet, way: str, batch: int, device: str, held: dict[str, int]) -> Step:
    """A training step, and, of a GPU's memory, the most bytes that it has held."""
    if torch.device(device).type != "cuda":
        return training_step(network, way, batch, device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step = training_step(network, way, batch, device)
    step()
    held[way] = torch.cuda.max_memory_allocated(device) - before
    return step


def memory(name: str, way: str, batch: int, device: str) -> int:
    """The most bytes that a process of its own holds, which computes two steps."""
    arguments = [name, "--ways", way, "--batch", str(batch), "--device", device, "--memory"]
    done = subprocess.run([sys.executable, __file__, "--models", *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.split()[-1])


def measure(name: str, batch: int, device: str, ways: list[str], rounds: int, with_memory: bool) -> list[dict]:
    """A row for each way."""
    clock = own = fair_clock(torch.get_num_threads(), device)
    if own is time.process_time:
        clock = lambda: own() + Apart.seconds  # noqa: E731
    network, on_cpu = initialised(name), torch.device(device).type == "cpu"
    held = {way: memory(name, way, batch, device) for way in ways} if with_memory and on_cpu else {}
    steps = {way: Apart(name, batch) if way == APART else made(network, way, batch, device, held) for way in ways}
    peaks = {bf16: matmul_peak(device, torch.bfloat16 if bf16 else torch.float32, clock) for bf16 in (False, True)}
    times = alternate(steps, rounds, 0.3, clock)
    operations = 2 * batch * count(MODELS[name]).training_macs(network.time_steps)
    literal = float(np.median(times["literal"])) if "literal" in times else None
    rows = []
    for way, seconds in times.items():
        median = float(np.median(seconds))
        rows.append({
            "model": name, "batch": batch, "way": way, "ms_p25": round(1e3 * np.percentile(seconds, 25), 2),
            "ms_median": round(1e3 * median, 2), "ms_p75": round(1e3 * np.percentile(seconds, 75), 2),
            "images_per_s": round(batch / median, 1), "times_literal": round(literal / median, 2) if literal else None,
            "matmul_share": round(operations / median / peaks["bf16" in way], 3),
            "memory_mb": round(held[way] / 2**20) if held else None,
            "memory_of_literal": round(held[way] / held["literal"], 2) if "literal" in held else None})
        print("  ".join(f"{k}={v}" for k, v in rows[-1].items() if v is not None), flush=True)
    return rows


def key(row: dict) -> tuple:
    return tuple(str(row[k]) for k in KEYS)


def run(args: argparse.Namespace) -> None:
    """All cases that were asked for."""
    kind = torch.device(args.device).type
    ways = [way for way in args.ways or WAYS[kind] if way not in args.skip]
    for name in args.models:
        for batch in args.batch or CASES[kind][name]:
            case(name, batch, ways, args.device, args)


def case(name: str, batch: int, ways: list[str], device: str, args: argparse.Namespace) -> None:
    """Measures a model at a batch and saves its rows, unless they stand in the table."""
    same = {**machine(("torch",)), "device": device_name(device), "threads": torch.get_num_threads()}
    done = {key(row) for row in read_rows(args.output)}
    if not args.again and all(key({**same, "model": name, "batch": batch, "way": way}) in done for way in ways):
        print(f"{name}, batch {batch}: stands in {args.output} already; --again measures anew")
        return
    rows = measure(name, batch, device, ways, args.rounds, not args.no_memory)
    add_rows(args.output, KEYS, [{**row, **same} for row in rows])
    print(f"wrote {args.output}", flush=True)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--models", nargs="*", default=list(CASES["cpu"]), choices=list(CASES["cpu"]))
    parser.add_argument("--batch", type=int, nargs="*", help="instead of the model's own")
    every = sorted({*WAYS["cpu"], *WAYS["cuda"]})
    parser.add_argument("--ways", nargs="*", choices=every, help="these alone")
    parser.add_argument("--skip", nargs="*", default=[], choices=every)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--again", action="store_true", help="also what is in the table")
    parser.add_argument("--no-memory", action="store_true", help="without a process for each way")
    for told in ("--memory", "--serve"):  # what other processes are told
        parser.add_argument(told, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "training.csv")
    return parser


def main() -> None:
    args = parser().parse_args()
    strict_arithmetic()
    if args.serve:
        return Apart.serve(args.models[0], args.batch[0])
    if args.ways != [APART]:
        keep_memory()
    if args.memory:
        training_step(build(args.models[0]), args.ways[0], args.batch[0], args.device)()
        print(peak_memory())
        return
    print(f"{device_name(args.device)}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    run(args)


if __name__ == "__main__":
    main()
