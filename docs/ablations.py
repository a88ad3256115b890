"""What each part of the method is worth: python docs/ablations.py RUN [RUN ...]

Each RUN is a run folder, trained with --record; one of them, the whole method. All but the ablated key must be equal.
Writes results/ablations.csv, docs/ablations.png and the table in docs/ablations.md.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from generated import write_between
from matplotlib.figure import Figure

from eisnn_zoo.analysis.evolution import mean_of, not_finite, silent_layers
from eisnn_zoo.analysis.evolution_figures import epoch_shades
from eisnn_zoo.analysis.snapshot import Snapshot, load_snapshots
from eisnn_zoo.errors import UsageError, ZooError
from eisnn_zoo.figures import label, layer_axis, legend, new, percent, to_png
from eisnn_zoo.files import read_metrics, to_csv, to_markdown, write_atomic
from eisnn_zoo.training.recipe import Recipe
from eisnn_zoo.training.record import IMAGES
from eisnn_zoo.training.run import Run
from eisnn_zoo.weights import read_tensors

ROOT = Path(__file__).parent.parent
WHOLE = "the whole method"
LEFT_OUT = {("init", "default"): "without E-I Init", ("stabilisation", "none"): "without adaptive stabilization",
            ("stabilisation", "no_ste"): "without the straight-through estimator",
            ("scale_w_ei_gradient", False): "without the 1/d scaling"}
MAY_DIFFER = {"init", "stabilisation", "scale_w_ei_gradient", "ei_ratio", "about", "paper_top1", "paper_source", "precision"}


@dataclass(frozen=True)
class Trained:
    """A run, what was left out of it, and what it left behind."""

    folder: Path
    recipe: Recipe
    metrics: list[dict[str, float]]
    snapshots: list[Snapshot]
    diverged: str

    @property
    def name(self) -> str:
        parts = [words for (key, value), words in LEFT_OUT.items() if getattr(self.recipe, key) == value]
        return ", ".join(parts + ([f"E:I ratio {self.ratio}:1"] if self.ratio != 4 else [])) or WHOLE

    @property
    def ratio(self) -> int:
        return self.recipe.ei_ratio or 4

    @property
    def order(self) -> tuple:
        """The whole method first, then what was left out in the order of the paper, then the ratios."""
        words = list(LEFT_OUT.values())
        return self.name != WHOLE, self.ratio != 4, self.ratio, words.index(self.name) if self.name in words else len(words)

    @property
    def end(self) -> Snapshot | None:
        """The last record, where there is one."""
        return self.snapshots[-1] if self.snapshots else None

    def same_weights(self, other: Trained) -> bool:
        files = [run.folder / "last" / "model.safetensors" for run in (self, other)]
        if not all(f.is_file() for f in files):
            return False
        a, b = map(read_tensors, files)
        return a.keys() == b.keys() and all(a[k].equal(b[k]) for k in a)


def load(folder: Path) -> Trained:
    run = Run.existing(folder)
    log = (folder / "log.txt").read_text("utf-8") if (folder / "log.txt").is_file() else ""
    found = re.search(r"diverged: (.*); (?:the last good checkpoint|nothing was saved)", log)
    snapshots = load_snapshots(folder) if (folder / "evolution").is_dir() else []
    return Trained(folder, run.recipe, read_metrics(folder), snapshots, found.group(1) if found else "")


def explodes(run: Trained) -> str:
    """How the numbers left the finite ones; empty where they did not."""
    lost = not_finite(run.end) if run.end else 0.0
    return run.diverged or (f"{100 * lost:.3f} % of the currents are not finite" if lost else "")


def outcome(run: Trained, whole: Trained) -> str:
    """In words."""
    if explodes(run):
        return f"numbers explode: {explodes(run)}"
    if not run.metrics:
        return "not trained yet"
    last, epochs = run.metrics[-1]["valid_top1"], len(run.metrics)
    unfinished = f" (after {epochs} of {run.recipe.epochs} epochs)" if epochs < run.recipe.epochs else ""
    silent = silent_layers(run.end) if run.end else []
    if silent:
        return f"firing collapses: layers {', '.join(map(str, silent))} of {len(run.end.activity)} fall silent{unfinished}"
    if run is whole:
        return f"learns{unfinished}"
    if run.same_weights(whole):
        return f"nothing changes: the weights are those of the whole method, bit for bit{unfinished}"
    beside = {row["epoch"]: row["valid_top1"] for row in whole.metrics}.get(epochs)
    if beside is None:
        return f"learns{unfinished}"
    if last == beside:
        return f"learns exactly as well as the whole method{unfinished}"
    return f"learns, {abs(last - beside):.1f} points {'below' if last < beside else 'above'} the whole method{unfinished}"


def row(run: Trained, whole: Trained) -> dict:
    end = run.end
    environment = Run.existing(run.folder).environment
    r = run.recipe
    return {"ablation": run.name, "model": r.model, "dataset": r.dataset, "validation": environment.get("validation"),
            "optimizer": r.optimizer, "lr": r.lr, "time_steps": r.final_steps, "seed": r.seed, "epochs": r.epochs,
            "epochs_trained": len(run.metrics), "precision": r.precision,
            **{f"top1_epoch_{epoch}": next((m["valid_top1"] for m in run.metrics if m["epoch"] == epoch), None)
               for epoch in shown_epochs(r.epochs)},
            "recorded_epoch": end and end.epoch, "mean_rate": end and round(mean_of(end, "mean"), 5),
            "silent": end and round(mean_of(end, "silent"), 5),
            "rates_by_layer": " ".join(f"{a['mean']:.5f}" for a in end.activity) if end else "", "outcome": outcome(run, whole),
            "train_images": environment.get("train_images"), "device": environment.get("device_name"),
            "threads": environment.get("threads"), "commit": environment.get("commit")}


def shown_epochs(epochs: int) -> list[int]:
    """All of a few, or the first, powers of two, and the last."""
    return list(range(1, epochs + 1)) if epochs <= 6 else sorted({*(2**i for i in range(10) if 2**i < epochs), epochs})


def table(rows: list[dict]) -> str:
    epochs = shown_epochs(rows[0]["epochs"])
    head = ["", *(f"epoch {e}" for e in epochs), "firing rate", "silent neurons", "what happens"]
    lines = []
    for r in rows:
        top1 = ["" if r[f"top1_epoch_{e}"] is None else f"{r[f'top1_epoch_{e}']:.1f}" for e in epochs]
        activity = ["" if r[key] is None else f"{100 * r[key]:.1f} %" for key in ("mean_rate", "silent")]
        lines.append([r["ablation"], *top1, *activity, r["outcome"]])
    return to_markdown(head, lines, range(1, len(epochs) + 3))


def setting(rows: list[dict]) -> str:
    r, precisions = rows[0], " or ".join(dict.fromkeys(row["precision"] for row in rows))
    threads = int(r["threads"])
    steps = "one time step" if r["time_steps"] == 1 else f"{r['time_steps']} time steps"
    return (f"`{r['model']}`, {steps}, {r['optimizer'].upper()} with a step of {r['lr']}, {r['epochs']} epochs on {r['train_images']} "
            f"training images, seed {r['seed']}, {precisions}; top-1 accuracy in % on {r['validation']}. Rates and silent "
            f"neurons (those that never fired) on {IMAGES} training images at the last record: the end, or the start of a run that "
            f"exploded. {r['device']}, {threads} thread{'s' * (threads != 1)}. One run each: a difference of a point or two is no finding.")


def picture(runs: list[Trained]) -> Figure:
    """Firing rates by layer, a panel for each recorded run, its epochs from light to dark."""
    if not runs:
        raise UsageError("none of the runs was recorded: train with --record")
    columns = min(4, len(runs))
    figure, axes = new(-(-len(runs) // columns), columns, 3.6 * columns, 2.9)
    top = max(a["mean"] for run in runs for s in run.snapshots for a in s.activity)
    for ax, run in zip(axes.flat, runs):
        for color, s in zip(epoch_shades(len(run.snapshots)), run.snapshots):
            rates = [a["mean"] for a in s.activity]
            name = "start" if s.epoch == 0 else f"epoch {s.epoch}"
            ends = s is run.snapshots[0] or s is run.snapshots[-1]
            ax.plot(range(1, len(rates) + 1), rates, color=color, marker="o", markersize=3.5, linewidth=1.5,
                    label=name if ends else None)
        layer_axis(ax, len(rates))
        ax.set_ylim(-0.02 * top, 1.08 * top)
        percent(ax.yaxis)
        words = "numbers explode" if explodes(run) else f"{run.metrics[-1]['valid_top1']:.1f} % right" if run.metrics else "not trained"
        label(ax, f"{run.name[:1].upper()}{run.name[1:]}\n{words}", "layer", "mean firing rate" if ax in axes[:, 0] else "")
        ax.title.set_fontsize(9)
        legend(ax)
    for ax in axes.flat[len(runs) :]:
        ax.set_visible(False)
    return figure


def write(folders: list[Path], root: Path = ROOT) -> list[dict]:
    """All three files below root. Raises ZooError: a folder that is no recorded run, or runs that are no ablations of one."""
    runs = sorted(map(load, folders), key=lambda run: run.order)
    if not runs or runs[0].name != WHOLE:
        raise UsageError("name run folders, among them one of the whole method, to which the others are compared")
    whole = runs[0]
    for run in runs[1:]:
        other = [key for key in Recipe.model_fields if key not in MAY_DIFFER and getattr(run.recipe, key) != getattr(whole.recipe, key)]
        if other:
            raise UsageError(f"{run.folder} differs from {whole.folder} in more than an ablation: {', '.join(other)}")
    rows = [row(run, whole) for run in runs]
    (root / "results").mkdir(exist_ok=True)
    write_atomic(root / "results" / "ablations.csv", to_csv(rows))
    write_atomic(root / "docs" / "ablations.png", to_png(picture([run for run in runs if run.snapshots]), dpi=110))
    write_between(root / "docs" / "ablations.md", "ablations", f"{setting(rows)}\n\n{table(rows)}")
    return rows


if __name__ == "__main__":
    try:
        for each in write([Path(argument) for argument in sys.argv[1:]]):
            print(f"{each['ablation']}: {each['outcome']}")
    except ZooError as error:
        sys.exit(f"Error: {error}")
