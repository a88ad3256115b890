"""Where the cells of VGG-8 stand, and how soon they learn: python docs/homeostasis.py CIFAR_FOLDER "TITLE=FOLDER" ...

Each argument is a title and a folder with weights, or a value of the recipe's ``init`` for a network that never learned. Adds to
results/currents.csv what the cells do on the first 256 held-out images at T = 1, and writes docs/homeostasis.png and the table of
training.md, whose accuracies are those of the runs' own metrics.csv.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from generated import titled, write_between

from eisnn_zoo.ei import EILayer
from eisnn_zoo.evaluating import together
from eisnn_zoo.figures import EXCITATION, GREY, INHIBITION, INK, label, layer_axis, legend, new, percent, to_png
from eisnn_zoo.files import add_rows, read_rows, to_markdown, write_atomic
from eisnn_zoo.locating import locate
from eisnn_zoo.networks import SpikingNet
from eisnn_zoo.neuron import LIF, SURROGATES
from eisnn_zoo.training.augment import pixels
from eisnn_zoo.training.data import Data, load_data
from eisnn_zoo.training.recipe_file import check_recipe
from eisnn_zoo.training.setup import make_model
from eisnn_zoo.weights import load_network

HERE = Path(__file__).parent
ROOT = HERE.parent
TABLE, PICTURE, PAGE = ROOT / "results" / "currents.csv", HERE / "homeostasis.png", HERE / "training.md"
RUNS = {"E-I": (ROOT / "hub" / "ei_vgg8_cifar10.zoo" / "metrics.csv", GREY),
        "E-I with homeostasis": (ROOT / "hub" / "ei_vgg8_cifar10.homeostasis" / "metrics.csv", EXCITATION),
        "BatchNorm": (ROOT / "hub" / "bn_vgg8_cifar10.zoo" / "metrics.csv", INHIBITION)}
HELD_OUT = {"model": "ei_vgg8_cifar10", "holdout": 5000}
EPOCHS = (1, 2, 3, 5, 10, 20, 30, 36, 42)
SILENT = 0.005  # a cell that fires in fewer of its places and images


def cells(title: str, model: SpikingNet, x: torch.Tensor) -> list[dict]:
    """A row for every layer of neurons: the mean currents of its cells, how near to their thresholds they work, and what least inhibition
    a cell has kept: the sum of its W_EI, 1 at E-I Init."""
    rows: list[dict] = []
    layers = [layer for layer in model.modules() if isinstance(layer, EILayer)]

    def look(lif: LIF, args: tuple, spikes: torch.Tensor) -> None:
        current = args[0][0].float().transpose(0, 1).flatten(1)  # [cells, samples] of the first step
        mean, rate = current.mean(1), spikes[0].float().transpose(0, 1).flatten(1).mean(1)
        slope = SURROGATES[lif.surrogate](current - lif.threshold, lif.alpha).mean()
        steepest = SURROGATES[lif.surrogate](torch.zeros(()), lif.alpha)
        deviation = current.std(1)
        least = layers[len(rows)].ei.weight.flatten(1).sum(1).min() if layers else ""
        rows.append({"network": title, "layer": len(rows) + 1, "mean": mean.mean(), "spread": mean.std(),
                     "deviation": deviation.median(), "largest_deviation": deviation.max(), "rate": rate.mean(),
                     "silent": (rate < SILENT).float().mean(), "slope": slope / steepest, "least_inhibition": least})

    model.eval().time_steps = 1
    with torch.no_grad(), together(lif.register_forward_hook(look) for lif in model.modules() if isinstance(lif, LIF)):
        model(x)
    return [{key: round(float(value), 4) if isinstance(value, torch.Tensor) else value for key, value in row.items()} for row in rows]


def network(where: str, data: Data) -> SpikingNet:
    if where in ("ei", "standardised"):
        recipe = check_recipe({**HELD_OUT, "time_steps": 1, "init": where}, "homeostasis")
        return make_model(recipe, data, pixels(data.train[torch.arange(128)].x))
    return load_network(locate(where))


def history(run: str) -> list[dict]:
    return read_rows(RUNS[run][0])


def page() -> str:
    head = ["after epoch", "T", *(name for run in RUNS for name in (f"{run}: training images (%)", "held out (%)"))]
    lines, histories = [], [{int(row["epoch"]): row for row in history(run)} for run in RUNS]
    for epoch in EPOCHS:
        rows = [run[epoch] for run in histories]
        time_steps, = {row["time_steps"] for row in rows}  # all of them by the same schedule
        lines.append((epoch, time_steps, *(f"{float(row[key]):.1f}" for row in rows for key in ("train_top1", "valid_top1"))))
    return to_markdown(head, lines, range(len(head)))


def draw(table: list[dict]) -> bytes:
    figure, axes = new(1, 3, width=13, height=3.6)
    curves, spread, slope = axes.flat
    for run, (_, colour) in RUNS.items():
        rows = history(run)[: max(EPOCHS)]
        curves.plot([int(r["epoch"]) for r in rows], [float(r["valid_top1"]) for r in rows], color=colour, label=run, lw=1.8)
    label(curves, "Held-out images right", "epoch", "%")
    legend(curves)
    titles = list(dict.fromkeys(row["network"] for row in table))
    colours = dict(zip(titles, ("#c8a951", INK, GREY, EXCITATION, INHIBITION)))
    for ax, key, text in ((spread, "spread", "Spread of the cells' mean currents"), (slope, "slope", "Mean slope of the surrogate")):
        for title in titles:
            values = [float(row[key]) for row in table if row["network"] == title]
            ax.plot(range(1, len(values) + 1), values, "o-", color=colours[title], label=title, lw=1.6, ms=4)
        ax.set_ylim(0)
        label(ax, text, "layer")
        layer_axis(ax, len(values))
    percent(slope.yaxis)
    legend(spread)
    return to_png(figure)


def main() -> None:
    data = load_data(check_recipe(HELD_OUT, "homeostasis"), Path(sys.argv[1]))
    x = pixels(data.valid[torch.arange(256)].x)
    arguments = [titled(argument) for argument in sys.argv[2:]]
    new_rows = [row for title, where in arguments for row in cells(title, network(where, data), x)]
    write_atomic(PICTURE, draw(add_rows(TABLE, ["network"], new_rows)))
    write_between(PAGE, "normalisation", page())


if __name__ == "__main__":
    main()
