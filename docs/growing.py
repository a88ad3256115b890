"""What grown networks answer before they are trained: python docs/growing.py DATASET=FOLDER [SHALLOW=DEEP ...] [SEED ...]

For every pair of models of that dataset (default: all of PAIRS) and every seed (2025), grows DEEP from the published weights of SHALLOW
on the first batch, as a recipe does, and measures both on the 5,000 held-out images. Adds to results/growing.csv, and writes the table
of training.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from generated import titled, write_between

from eisnn_zoo.catalog import MODELS
from eisnn_zoo.files import add_rows, to_markdown
from eisnn_zoo.inference.folding import fold
from eisnn_zoo.networks import SpikingNet, build
from eisnn_zoo.training.augment import pixels
from eisnn_zoo.training.data import load_data
from eisnn_zoo.training.engine import INIT_BATCH
from eisnn_zoo.training.growing import grow
from eisnn_zoo.training.recipe_file import check_recipe
from eisnn_zoo.training.schedule import batches
from eisnn_zoo.weights import create_model

HERE = Path(__file__).parent
TABLE, PAGE = HERE.parent / "results" / "growing.csv", HERE / "training.md"
PAIRS = {"mnist": ("ei_mlp8_mnist=ei_mlp12_mnist", "ei_mlp8_mnist=ei_mlp16_mnist"),
         "cifar10": ("ei_vgg8_cifar10=ei_vgg11_cifar10", "ei_vgg8_cifar10=ei_vgg16_cifar10", "ei_vgg11_cifar10=ei_vgg16_cifar10",
                     "ei_vgg11_cifar10=ei_vgg19_cifar10")}


def answers(network: SpikingNet, x: torch.Tensor) -> torch.Tensor:
    folded = fold(network.eval(), size=tuple(x.shape[2:]))
    return torch.cat([folded(part).argmax(1) for part in x.split(100)])


@torch.no_grad()
def main() -> None:
    dataset, folder = titled(sys.argv[1])
    pairs = [a for a in sys.argv[2:] if "=" in a] or PAIRS[dataset]
    seeds = [int(a) for a in sys.argv[2:] if "=" not in a] or [2025]
    data = load_data(check_recipe({"model": titled(pairs[0])[1], "dataset": dataset, "holdout": 5000}, "growing"), Path(folder))
    first = pixels(data.train[next(batches(len(data.train), INIT_BATCH, 2025, 0))].x)
    held_out = data.valid[torch.arange(len(data.valid))]
    x, y = pixels(held_out.x), held_out.y
    known: dict[str, torch.Tensor] = {}
    for shallow, deep in map(titled, pairs):
        trained = create_model(shallow, pretrained=True)
        if shallow not in known:
            known[shallow] = answers(trained, x)
        for seed in seeds:
            model = build(deep)
            grow(model, trained, first, seed)
            model.mark_initialised()
            found = answers(model, x)
            row = {"from": shallow, "grown": deep, "seed": seed, "held_out": len(y),
                   "top1_from": round(100 * (known[shallow] == y).float().mean().item(), 2),
                   "top1_grown": round(100 * (found == y).float().mean().item(), 2),
                   "same_answer": round(100 * (found == known[shallow]).float().mean().item(), 2)}
            print(row, flush=True)
            rows = add_rows(TABLE, ["from", "grown", "seed"], [row])
    write_between(PAGE, "growing", page(rows))


def page(rows: list[dict]) -> str:
    lines = []
    pairs = sorted({(row["grown"], row["from"]) for row in rows}, key=lambda pair: [list(MODELS).index(name) for name in pair])
    for pair in pairs:
        seeds = [row for row in rows if (row["grown"], row["from"]) == pair]
        figures = (sum(float(row[key]) for row in seeds) / len(seeds) for key in ("top1_from", "top1_grown", "same_answer"))
        lines.append([*(MODELS[name].title for name in pair), *(f"{figure:.1f}" for figure in figures), len(seeds)])
    head = ["grown", "from", "that one: held-out images (%)", "grown, not trained (%)", "same answer (%)", "seeds"]
    return to_markdown(head, lines, range(2, 6))


if __name__ == "__main__":
    main()
