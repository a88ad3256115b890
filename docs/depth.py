"""Does E-I Init with Muon hold with depth? python docs/depth.py CIFAR_FOLDER   (goes on where it was stopped)

Trains E-I ResNets on 16 x 16 images at T = 1, with Muon as it is, with a slow W_IE, and deflated, for STEPS steps from the same
start. Writes results/depth_losses.csv (loss by step), results/depth_rates.csv (firing rates by layer, at the start and the end) and
docs/depth.png, which `python docs/depth.py` alone draws again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from eisnn_zoo.analysis.measures import FiringRates
from eisnn_zoo.analysis.probes import stream
from eisnn_zoo.catalog import MODELS as CATALOG
from eisnn_zoo.figures import GREY, label, layer_axis, legend, new, percent, to_png
from eisnn_zoo.files import read_rows, to_csv, write_atomic
from eisnn_zoo.training.augment import pixels
from eisnn_zoo.training.data import load_data
from eisnn_zoo.training.optim import set_rate
from eisnn_zoo.training.recipe_file import check_recipe
from eisnn_zoo.training.schedule import batches, rate
from eisnn_zoo.training.setup import faster_precision, keep_memory, make_model, make_optimizer

HERE = Path(__file__).parent
LOSSES, RATES, PICTURE = (HERE.parent / "results" / "depth_losses.csv", HERE.parent / "results" / "depth_rates.csv", HERE / "depth.png")
MODELS = ("ei_resnet18", "ei_resnet34", "ei_resnet50", "ei_resnet101")
WAYS: dict[str, tuple[str, dict]] = {  # colour, what the recipe says
    "Muon": ("#b5303a", {}), "slow W_IE": ("#d9a441", {"inhibitory": 0.125}), "deflated": ("#3b6ea5", {"deflate_epochs": 1})}
STEPS, BATCH, SIDE, WARMUP, PROBED, WINDOW = 100, 64, 16, 20, 64, 10


def train(name: str, way: str, root: Path) -> tuple[list[dict], list[dict]]:
    """(loss of every step, rates of every layer at the start and the end)."""
    recipe = check_recipe({"model": name, "dataset": "cifar10", "time_steps": 1, "resolution": SIDE, "optimizer": "muon", "lr": 8e-3,
                           "momentum": 0.95, "weight_decay": 0.0, "batch_size": BATCH, "holdout": 5000,
                           **WAYS[way][1]}, "depth")
    data = load_data(recipe, root)
    order = list(batches(len(data.train), BATCH, recipe.seed, 0))
    model = make_model(recipe, data, pixels(data.train[order[0]].x, SIDE)).train()
    optimizer = make_optimizer(recipe, model, deflated=round(recipe.deflate_epochs * len(order)))
    bf16 = faster_precision(torch.device("cpu")) == "bf16"
    probed = pixels(data.valid[torch.arange(PROBED)].x, SIDE)
    losses, rates = [], measured(model, probed, name, way, 0)
    for step, chosen in enumerate(order[:STEPS], 1):
        batch = data.train[chosen]
        set_rate(optimizer, rate(step, STEPS, WARMUP, recipe.lr, recipe.warmup_lr, "flat"))
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(pixels(batch.x, SIDE))
        loss = F.cross_entropy(logits.float(), batch.y)
        loss.backward()
        optimizer.step()
        losses.append({"model": name, "optimizer": way, "step": step, "loss": round(loss.item(), 4)})
    return losses, rates + measured(model, probed, name, way, STEPS)


def measured(model, x: torch.Tensor, name: str, way: str, step: int) -> list[dict]:
    collector = FiringRates()
    model.eval()
    stream(model, [x], collector)
    model.train()
    return [{"model": name, "optimizer": way, "step": step, "layer": row["layer"], "rate": round(row["mean"], 4)}
            for row in collector.rows()]


def draw(losses: list[dict], rates: list[dict]) -> bytes:
    shown = [name for name in MODELS if any(row["model"] == name for row in losses)]
    figure, axes = new(2, len(shown), width=3 + 3 * len(shown), height=2.6)
    for (top, bottom), name in zip(axes.T, shown):
        for way, (colour, _) in WAYS.items():
            curve = [float(row["loss"]) for row in losses if (row["model"], row["optimizer"]) == (name, way)]
            smooth = [sum(part) / len(part) for i in range(len(curve)) if (part := curve[max(0, i - WINDOW + 1) : i + 1])]
            top.plot(range(1, len(smooth) + 1), smooth, color=colour, label=way)
            for step, line in ((0, dict(color=GREY, lw=1, label="E-I Init")), (STEPS, dict(color=colour, lw=1.4, label=way))):
                found = [float(row["rate"]) for row in rates
                         if (row["model"], row["optimizer"], int(row["step"])) == (name, way, step)]
                if step or way == "Muon":
                    bottom.plot(range(1, len(found) + 1), found, **line)
        top.axhline(2.3026, color=GREY, lw=0.8, ls=":")
        label(top, CATALOG[name].title, "step")
        label(bottom, "", "layer")
        top.set_ylim(1.6, 2.6)
        bottom.set_ylim(-0.03, 1.28)  # room for the legend
        bottom.set_yticks((0, 0.25, 0.5, 0.75, 1))
        percent(bottom.yaxis)
        layer_axis(bottom, len(found))
    axes[0, 0].set_ylabel("loss (dotted: guessing)")
    axes[1, 0].set_ylabel(f"firing rate after {STEPS} steps")
    legend(axes[1, 0], loc="upper left", ncols=3)
    return to_png(figure)


def main() -> None:
    keep_memory()
    losses, rates = read_rows(LOSSES), read_rows(RATES)
    for name in MODELS if len(sys.argv) > 1 else ():
        for way in WAYS:
            if any((row["model"], row["optimizer"]) == (name, way) for row in losses):
                continue
            more = train(name, way, Path(sys.argv[1]))
            print(f"{name}, {way}: loss {sum(row['loss'] for row in more[0][-WINDOW:]) / WINDOW:.3f}", flush=True)
            losses, rates = losses + more[0], rates + more[1]
            write_atomic(LOSSES, to_csv(losses))
            write_atomic(RATES, to_csv(rates))
    write_atomic(PICTURE, draw(losses, rates))


if __name__ == "__main__":
    main()
