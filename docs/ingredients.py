"""What each ingredient of a recipe is worth: adds runs to results/ingredients.csv, and writes the table and the picture of training.md.

    python docs/ingredients.py --baseline runs/base runs/base runs/base_seed1 runs/no_smoothing ...
    python docs/ingredients.py                       # the table and the picture again, from the CSV alone

A run is named by the keys of its recipe that differ from the baseline's; runs that differ in the seed alone are one row. How the
runs were made stands in training.md.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from generated import write_between

from eisnn_zoo.figures import GREEN, GREY, INK, label, new, to_png
from eisnn_zoo.files import add_rows, read_rows, sha256, to_markdown, write_atomic
from eisnn_zoo.training.run import Run

HERE = Path(__file__).parent
TABLE, PAGE, PICTURE = HERE.parent / "results" / "ingredients.csv", HERE / "training.md", HERE / "ingredients.png"
TELLS_NOTHING = {"seed", "about", "paper_top1", "paper_source", "stop_at", "precision", "warmup_lr"}
BASELINE = "baseline"


def changes(recipe, baseline) -> str:
    """As one would set them on the command line."""
    ours, theirs = recipe.model_dump(), baseline.model_dump()
    if recipe.optimizer == "sgd" != baseline.optimizer:
        return f"the paper's optimizer: SGD, lr {recipe.lr}"
    return ", ".join(f"{key} = {value}" for key, value in ours.items() if value != theirs[key] and key not in TELLS_NOTHING) or BASELINE


def measured(folder: Path, baseline) -> dict:
    run = Run.existing(folder)
    recipe, where = run.recipe, run.environment
    history = read_rows(folder / "metrics.csv")
    if len(history) != recipe.epochs:
        raise SystemExit(f"{folder} is not finished: {len(history)} of {recipe.epochs} epochs")
    return {"changes": changes(recipe, baseline), "seed": recipe.seed, "epochs": recipe.epochs, "train_images": where["train_images"],
            "time_steps": recipe.final_steps, "train_loss": history[-1]["train_loss"], "valid_loss": history[-1]["valid_loss"],
            "valid_top1": history[-1]["valid_top1"], "valid_images": where["valid_images"], "recipe_sha256": sha256(folder / "recipe.yaml"),
            "eisnn_zoo": where["eisnn_zoo"], "torch": where["torch"], "device": where["device_name"], "threads": where["threads"]}


def summary(rows: list[dict]) -> list[tuple[str, list[float]]]:
    """(changes, top-1 of each seed), the best mean first."""
    by: dict[str, list[float]] = {}
    for row in rows:
        by.setdefault(row["changes"], []).append(float(row["valid_top1"]))
    return sorted(by.items(), key=lambda item: -statistics.mean(item[1]))


def page(rows: list[dict]) -> str:
    base = statistics.mean(float(r["valid_top1"]) for r in rows if r["changes"] == BASELINE)
    lines = []
    for name, values in summary(rows):
        mean = statistics.mean(values)
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        shown = f"**{name}**" if name == BASELINE else f"`{name}`" if "=" in name else name
        lines.append((shown, len(values), f"{mean:.2f}{spread}", "" if name == BASELINE else f"{mean - base:+.2f}"))
    return to_markdown(("changed from the baseline", "runs", "top-1 (%)", "against the baseline"), lines, (1, 2, 3))


def draw(rows: list[dict]) -> bytes:
    shown = summary(rows)[::-1]
    figure, axes = new(width=8.6, height=0.9 + 0.29 * len(shown))
    ax = axes[0, 0]
    base = [float(r["valid_top1"]) for r in rows if r["changes"] == BASELINE]
    for i, (name, values) in enumerate(shown):
        colour = INK if name == BASELINE else GREEN if statistics.mean(values) >= statistics.mean(base) else GREY
        ax.plot([statistics.mean(base), statistics.mean(values)], [i, i], color=colour, lw=2, alpha=0.35)
        ax.plot(values, [i] * len(values), "o", color=colour, ms=5)
    ax.axvspan(min(base), max(base), color=INK, alpha=0.08, lw=0)
    ax.set_yticks(range(len(shown)), [name for name, _ in shown])
    label(ax, "", "top-1 on images held out, %\na dot is a run, the band the runs of the baseline")
    return to_png(figure, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", type=Path, help="run whose recipe the others are compared with; counts if among them")
    parser.add_argument("runs", type=Path, nargs="*")
    arguments = parser.parse_args()
    rows = read_rows(TABLE)
    if arguments.baseline:
        baseline = Run.existing(arguments.baseline).recipe
        new = [measured(folder, baseline) for folder in arguments.runs]
        rows = add_rows(TABLE, ["recipe_sha256"], new)
    write_between(PAGE, "ingredients", page(rows))
    write_atomic(PICTURE, draw(rows))


if __name__ == "__main__":
    main()
