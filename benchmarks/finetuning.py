"""What makes a step from published weights fast on a CPU? Denormals flushed or not, directions of Muon in float32 or bf16, in turn.

    python benchmarks/finetuning.py cifar/

Writes benchmarks/results/finetuning.csv, model by model: processor time of forward and backward, and of the optimizer, of 32 training
images in one thread, at the T of the weights. The gradients of trained networks have numbers below 1.2e-38, which are slow to compute with.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import numpy as np
import torch
import torch.nn.functional as F

import eisnn_zoo
from eisnn_zoo.benchmarking.timing import alternate
from eisnn_zoo.catalog import DATASETS
from eisnn_zoo.files import add_rows
from eisnn_zoo.machine import machine
from eisnn_zoo.training.augment import pixels
from eisnn_zoo.training.data import Images
from eisnn_zoo.training.optim import EIMuon
from eisnn_zoo.training.reading import read
from eisnn_zoo.training.setup import keep_memory

MODELS = ("ei_vgg8_cifar10.zoo", "ei_vgg8_cifar10.homeostasis", "ei_vgg11_cifar10.ann_taught", "ei_resnet18_cifar10.zoo")
IMAGES = 32
OUTPUT = Path(__file__).parent / "results" / "finetuning.csv"


def measure(name: str, x: torch.Tensor, y: torch.Tensor, rounds: int) -> list[dict]:
    model = eisnn_zoo.create_model(name, pretrained=True).train()

    def gradients(flush: bool) -> None:
        torch.set_flush_denormal(flush)
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()

    ways = [(flush, bf16) for flush in (False, True) for bf16 in (True, False)]
    steps = {way: EIMuon(model, lr=1e-9, bf16=way[1]) for way in ways}  # so small a step that all see the same weights

    def step(flush: bool, bf16: bool) -> None:
        torch.set_flush_denormal(flush)
        steps[flush, bf16].step()

    backward = alternate({flush: lambda flush=flush: gradients(flush) for flush in (False, True)}, rounds, 0.0, time.process_time)
    times = {}
    for flush in (False, True):
        gradients(flush)
        times |= alternate({way: lambda way=way: step(*way) for way in ways if way[0] is flush}, rounds, 0.0, time.process_time)
    return [{"model": name, "time_steps": model.time_steps, "images": IMAGES, "denormals": "flushed" if flush else "kept",
             "directions": "bf16" if bf16 else "fp32", "gradients_ms": round(1e3 * np.median(backward[flush])),
             "optimizer_ms": round(1e3 * np.median(times[flush, bf16]))} for flush, bf16 in ways]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of CIFAR-10")
    parser.add_argument("--models", nargs="*", default=MODELS, choices=MODELS)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    keep_memory()
    batch = Images.of(read(DATASETS["cifar10"], args.data, "train"))[torch.arange(IMAGES)]
    x, y = pixels(batch.x), batch.y
    for name in args.models:
        rows = [{**row, **machine(("torch",))} for row in measure(name, x, y, args.rounds)]
        print(*rows, sep="\n", flush=True)
        add_rows(OUTPUT, ["model", "denormals", "directions"], rows)


if __name__ == "__main__":
    main()
