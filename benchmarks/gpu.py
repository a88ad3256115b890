"""All that a GPU is to tell about training, in order, by one command that goes on where it was stopped.

    python benchmarks/gpu.py                                     minutes on one GPU; --output DIR for other than results/
    TRITON_INTERPRET=1 python benchmarks/gpu.py --device cpu --small --output trial           a trial without one

1. gpu_correctness.csv  spikes and gradients of the kernels (eisnn_zoo.fused) and of torch, against float64
2. gpu_kernels.csv      milliseconds of both, and of torch.compile, at the sizes that the networks have at batch 128
3. training.csv         training steps against the literal formulation, see benchmarks/training.py

Its programs are compiled first, which takes longer than measuring them: a run before, with --only and another --output, side by side for
each part, leaves them in torch's cache.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import training
from torch import Tensor

from eisnn_zoo import fused, fusing
from eisnn_zoo.benchmarking.timing import alternate
from eisnn_zoo.compiling import compile_options
from eisnn_zoo.files import to_csv, write_atomic
from eisnn_zoo.machine import device_name, machine
from eisnn_zoo.neuron import LIF, SURROGATES
from eisnn_zoo.precision import strict_arithmetic

SIZES = {  # steps of the drives, images, side, channels
    "1st layer": (1, 128, 32, 64), "ResNet-18, 64 channels": (4, 128, 32, 64), "ResNet-18, 256 channels": (4, 128, 8, 256)}
SMALL = {"small": (4, 2, 4, 8), "small, held": (1, 2, 4, 8)}
T = 4
PARTS = ("correctness", "kernels", "training")
Function = Callable[..., Tensor]


def plain(net: Tensor, i_div: Tensor, g_e: Tensor, b_e: Tensor, lif: LIF, steps_in: int, time_steps: int) -> Tensor:
    """What the kernel computes, in torch, and in the type of the gains."""
    return fusing.divide_and_fire_plainly(net.to(g_e.dtype), i_div.to(g_e.dtype), g_e, b_e, lif, steps_in, time_steps)


def drives(steps: int, images: int, side: int, channels: int, device: str) -> list[Tensor]:
    """net, I_div with zeros and silent slices, g_E, b_E, and a gradient of the spikes; as layers have them after E-I Init."""
    rng = torch.Generator().manual_seed(0)
    shape = (steps * images, side, side, channels)
    net, i_div = torch.randn(shape, generator=rng), 0.5 + torch.rand(shape, generator=rng)
    i_div[:, : side // 4] = 0
    net[0], i_div[0] = 0, 0
    gains = 0.5 + torch.rand(channels, generator=rng), 0.3 * torch.randn(channels, generator=rng)
    weights = torch.randn(T * images, side, side, channels, generator=rng)
    return [x.to(device) for x in (net, i_div, *gains, weights)]


def gradients(function: Function, values: list[Tensor], lif: LIF, steps: int) -> list[Tensor]:
    """Spikes, and the derivatives by net, I_div, g_E, b_E."""
    return fusing.spikes_and_gradients(function, values[:4], values[4], lif, steps, T)


def correctness(device: str, small: bool) -> Iterable[dict]:
    for steps in (T, 1):
        values = drives(steps, *((2, 4, 8) if small else (8, 16, 64)), device)
        for surrogate in SURROGATES:
            for reset in ("soft", "hard"):
                lif = LIF(surrogate=surrogate, reset=reset)
                exact = gradients(plain, [v.double() for v in values], lif, steps)
                for way, function in (("torch", plain), ("fused", fused.divide_and_fire)):
                    spikes, *found = gradients(function, values, lif, steps)
                    errors = [((a - b).norm() / b.norm()).item() for a, b in zip(found, exact[1:])]
                    yield {"steps": steps, "surrogate": surrogate, "reset": reset, "way": way,
                           "spikes": spikes.numel(), "other_spikes": int((spikes != exact[0]).sum()),
                           **{f"error_{name}": f"{e:.1e}" for name, e in zip(("net", "i_div", "g_e", "b_e"), errors)}}


def kernels(device: str, small: bool) -> Iterable[dict]:
    lif = LIF()
    compiled = torch.compile(plain, **compile_options(torch.device(device).type))
    for title, size in (SMALL if small else SIZES).items():
        for dtype in (torch.float32, torch.bfloat16):
            values = drives(*size, device)
            values[:2] = [v.to(dtype) for v in values[:2]]

            def forward(function: Function, values: list[Tensor] = values, steps: int = size[0]) -> None:
                with torch.no_grad():
                    function(*values[:4], lif, steps, T)[0, 0, 0, 0].item()

            def backward(function: Function, values: list[Tensor] = values, steps: int = size[0]) -> None:
                gradients(function, values, lif, steps)[1][0, 0, 0, 0].item()

            ways = {"torch": plain, "compiled": compiled, "fused": fused.divide_and_fire}
            both = {(way, run): lambda f=f, run=run: run(f) for way, f in ways.items() for run in (forward, backward)}
            times = {key: 1e3 * float(min(t)) for key, t in alternate(both, 2 if small else 6, 0.05).items()}
            for way in ways:
                there, and_back = times[way, forward], times[way, backward]
                yield {"size": title, "drives": str(dtype).removeprefix("torch."), "way": way, "ms_forward": round(there, 3),
                       "ms_forward_backward": round(and_back, 3), "times_torch": round(times["torch", backward] / and_back, 2)}


def write(rows: Iterable[dict], path: Path, device: str, again: bool) -> None:
    """The whole table or nothing, so that a table that stands there is whole."""
    if path.exists() and not again:
        print(f"{path} stands there already; --again measures anew")
        return
    about, made = {**machine(("torch", "triton")), "device": device_name(device)}, []
    for row in rows:
        print("  ".join(f"{k}={v}" for k, v in row.items()), flush=True)
        made.append({**about, **row})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, to_csv(made))
    print(f"wrote {path}\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--small", action="store_true", help="a trial: sizes that any machine computes in minutes")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS, help="these parts")
    parser.add_argument("--again", action="store_true", help="also what was measured before")
    args = parser.parse_args()
    if args.device != "cpu" and not torch.cuda.is_available():
        parser.error("there is no GPU here; --help shows a trial without one")
    strict_arithmetic()
    os.environ["EISNN_ZOO_FUSED"] = "1"
    device = torch.empty(0, device=args.device).device
    for surrogate in SURROGATES:
        agree = fusing._tried(device, surrogate, "soft") is not None
        print(f"kernels, {surrogate}: {'agree with torch' if agree else 'DIFFER from torch, so networks do not use them'}")
    out = args.output
    if "correctness" in args.only:
        write(correctness(args.device, args.small), out / "gpu_correctness.csv", args.device, args.again)
    if "kernels" in args.only:
        write(kernels(args.device, args.small), out / "gpu_kernels.csv", args.device, args.again)
    if "training" in args.only:
        options = ["--device", args.device, "--output", str(out / "training.csv"), *(["--again"] if args.again else [])]
        small = ["--models", "ei_vgg8", "--batch", "2", "--rounds", "1", "--ways", "literal", "eager", "eager bf16"]
        training.run(training.parser().parse_args(options + (small if args.small else [])))


if __name__ == "__main__":
    main()
