"""How soon a run reaches an accuracy: adds to results/time_to_accuracy.csv, writes the table of training.md, and draws the runs on a GPU.

    python docs/time_to_accuracy.py "Muon, T = 1, 2, 4=hub/ei_vgg8_cifar10.zoo" "SGD, T = 4=runs/sgd"

Each argument is a title and a folder with recipe.yaml, metrics.csv and environment.json. Operations are two for each multiply-add of
forward and backward (eisnn_zoo.count), for every training image.
"""

from __future__ import annotations

import sys
from itertools import cycle
from pathlib import Path

from generated import titled, write_between

from eisnn_zoo.catalog import MODELS
from eisnn_zoo.count import count
from eisnn_zoo.figures import GREY, label, legend, new, to_png
from eisnn_zoo.files import add_rows, read_rows, to_markdown, write_atomic
from eisnn_zoo.training.run import Run

HERE = Path(__file__).parent
TABLE, PAGE, PICTURE = HERE.parent / "results" / "time_to_accuracy.csv", HERE / "training.md", HERE / "time_to_accuracy.png"
DRAWN = "one H200"  # in the titles of the runs that shared a machine
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
GOALS = (30, 40, 50, 60, 70, 75, 80, 84, 85, 86, 87, 88, 89, 90, 91, 92)
SHOWN = (40, 60, 70, 80, 85, 87, 88, 90, 92)  # in the page; the table has all
PAPER = {"epochs": 300, "images": 50_000, "time_steps": 4}


def operations(model: str, images: int, time_steps: int, side: int = 0) -> float:
    """Of training on so many images, forward and backward; side: of the images, the model's own where 0."""
    return 2 * count(MODELS[model], side).training_macs(time_steps) * images


def reached(title: str, folder: Path) -> list[dict]:
    """The first epoch with each accuracy on the held-out images, and what it had taken until then."""
    run = Run.existing(folder)
    model, where = run.recipe.model, run.environment
    whole = PAPER["epochs"] * operations(model, PAPER["images"], PAPER["time_steps"])
    rows, spent, seconds = [], 0.0, 0.0
    goals = list(GOALS)
    for epoch in read_rows(folder / "metrics.csv"):
        side = run.recipe.at("resolution", int(epoch["epoch"]) - 1)
        spent += operations(model, where["train_images"], int(epoch["time_steps"]), side)
        seconds += float(epoch["seconds"])
        while goals and float(epoch["valid_top1"]) >= goals[0]:
            rows.append({"run": title, "model": model, "top1": goals.pop(0), "epochs": epoch["epoch"],
                         "time_steps": epoch["time_steps"], "tera_operations": round(spent / 1e12),
                         "share_of_paper": round(spent / whole, 5), "seconds": round(seconds),
                         "device": where.get("device_name") or where["device"], "threads": where["threads"]})
    return rows


def page(rows: list[dict]) -> str:
    """A row a run; a cell for each of the accuracies :data:`SHOWN`."""
    lines = []
    for title in dict.fromkeys(row["run"] for row in rows):
        cells = {int(row["top1"]): _cell(row) for row in rows if row["run"] == title}
        lines.append((title, *(cells.get(goal, "") for goal in SHOWN)))
    return to_markdown(("", *(f"{goal} %" for goal in SHOWN)), lines)


def _cell(row: dict) -> str:
    seconds = int(row["seconds"])
    took = f"{seconds} s" if seconds < 300 else f"{seconds / 60:.0f} min"
    return f"{row['epochs']}: {took}, {100 * float(row['share_of_paper']):.2g} %"


def draw(rows: list[dict]) -> bytes:
    """Accuracy against seconds of training on one GPU; the paper's recipe in grey."""
    figure, axes = new(width=8.2, height=3.6)
    ax, colours = axes[0, 0], cycle(COLOURS)
    for title in dict.fromkeys(row["run"] for row in rows if DRAWN in row["run"]):
        points = [(int(row["seconds"]), int(row["top1"])) for row in rows if row["run"] == title]
        name = title.replace(f", {DRAWN}", "").replace(": ", ", ", 1)
        ax.plot(*zip(*points), "o-", color=GREY if "paper" in title else next(colours), lw=1.6, ms=3.5, label=name)
    ax.set_xscale("log")
    ticks = (3, 5, 10, 20, 30, 60, 120, 300)
    ax.set_xticks(ticks, [f"{t} s" if t < 60 else f"{t // 60} min" for t in ticks])
    ax.minorticks_off()
    label(ax, "", "training on one H200, evaluation not counted", "top-1 (%)")
    legend(ax, loc="lower right")
    return to_png(figure)


def main() -> None:
    arguments = [titled(argument) for argument in sys.argv[1:]]
    rows = add_rows(TABLE, ["run"], [row for title, folder in arguments for row in reached(title, Path(folder))])
    write_between(PAGE, "time to accuracy", page(rows))
    write_atomic(PICTURE, draw(rows))


if __name__ == "__main__":
    main()
