"""Pictures of a run and of a network's errors."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..benchmarking.contenders import PEERS
from ..files import write_atomic


def curves(history: list[dict], path: Path, paper: float | None = None) -> None:
    """Loss and accuracy by epoch; paper: the figure to reproduce, as a line."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for axes, key, title in zip(figure.subplots(1, 2), ("loss", "top1"), ("cross-entropy", "top-1 accuracy, %")):
        axes.plot(epochs, [row[f"train_{key}"] for row in history], label="training", color="#8c9fb1")
        axes.plot(epochs, [row[f"valid_{key}"] for row in history], label="validation", color="#b5303a")
        axes.set_xlabel("epoch")
        axes.set_title(title)
        axes.grid(alpha=0.3)
        if key == "top1" and paper is not None:
            axes.axhline(paper, linestyle=":", color="black", label=f"paper: {paper:g}")
        axes.legend(frameon=False)
    _save(figure, path)


def confusion(matrix, label_names: tuple[str, ...], path: Path) -> None:
    """Share of each true class (row) that was given each class (column); ``[K, K]`` counts."""
    k = len(label_names)
    side = min(4 + 0.28 * k, 16)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    share = matrix / matrix.sum(1, keepdims=True).clip(min=1)
    image = axes.imshow(share, cmap="magma_r", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if k <= 50:
        axes.set_xticks(range(k), label_names, rotation=90)
        axes.set_yticks(range(k), label_names)
    if k <= 12:
        for i in range(k):
            for j in range(k):
                axes.text(j, i, int(matrix[i, j]), ha="center", va="center", fontsize=8,
                          color="white" if share[i, j] > 0.5 else "black")
    _save(figure, path)


def accuracy_by_steps(by_time: list[dict], early: list[dict], path: Path) -> None:
    """Accuracy after each number of time steps, and where early exit lies among them."""
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([row["time_steps"] for row in by_time], [row["top1"] for row in by_time], marker="o", color="#0072B2",
              label="all take T steps")
    for row in early:
        axes.plot(row["average_steps"], row["top1"], marker="D", linestyle="", color="#D55E00",
                  label=f"stop once {100 * row['confidence']:g} % sure")
    axes.set_xlabel("time steps (average)")
    axes.set_ylabel("top-1 accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    _save(figure, path)


def speed(rows: list[dict], path: Path) -> None:
    """Images a second, median and quartiles, of `eisnn-zoo benchmark`: a panel for each batch size."""
    batches = sorted({row["batch"] for row in rows})
    names = list(dict.fromkeys((row["model"], row["backend"]) for row in rows))
    one = len({model for model, _ in names}) == 1
    figure = Figure(figsize=(2.5 + 3 * len(batches), 1.6 + 0.32 * len(names)), layout="constrained")
    for axes, batch in zip(figure.subplots(1, len(batches), sharey=True, squeeze=False)[0], batches):
        here = {(row["model"], row["backend"]): row for row in rows if row["batch"] == batch}
        middle = [here[name]["images_per_s"] for name in names]
        spread = [[m - here[name]["p25"] for m, name in zip(middle, names)], [here[name]["p75"] - m for m, name in zip(middle, names)]]
        colours = ["#999999" if backend in PEERS else "#0072B2" for _, backend in names]
        bars = axes.barh(range(len(names)), middle, xerr=spread, color=colours, ecolor="#333333")
        axes.bar_label(bars, [f" {m:.0f}" if m >= 10 else f" {m:.1f}" for m in middle], fontsize=8)
        axes.set_yticks(range(len(names)), [backend if one else f"{model} {backend}" for model, backend in names])
        axes.set_xlim(0, 1.2 * max(middle))
        axes.set_title(f"batch {batch}", fontsize=10)
        axes.set_xlabel("images a second")
    axes.invert_yaxis()
    about = rows[0]
    threads = f"{about['threads']} thread{'s' if about['threads'] > 1 else ''}"
    figure.suptitle(f"{names[0][0] if one else 'Networks'} on {about['processor']}"
                    + (f", {threads}" if about["device"] == "cpu" else ""), fontsize=10)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    out = io.BytesIO()
    FigureCanvasAgg(figure).print_png(out)
    write_atomic(path, out.getvalue())
