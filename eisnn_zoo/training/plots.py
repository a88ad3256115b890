"""Pictures of a run and of a network's errors."""

from __future__ import annotations

from pathlib import Path

from matplotlib.ticker import MaxNLocator, NullFormatter

from ..figures import EXCITATION, GREY, INHIBITION, blank, short, to_png
from ..files import write_atomic


def curves(history: list[dict], path: Path, paper: float | None = None) -> None:
    """Loss and accuracy by epoch; paper: the figure to reproduce, as a line."""
    figure = blank(9, 3.6)
    epochs = [row["epoch"] for row in history]
    for axes, key, title in zip(figure.subplots(1, 2), ("loss", "top1"), ("loss (validation: plain cross-entropy)", "top-1 accuracy, %")):
        for which, label, color in (("train", "training", "#8c9fb1"), ("valid", "validation", "#b5303a")):
            axes.plot(epochs, [row[f"{which}_{key}"] for row in history], label=label, color=color, marker="o" if len(epochs) < 2 else None)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch")
        axes.set_title(title)
        axes.grid(alpha=0.3)
        if key == "top1" and paper is not None:
            axes.axhline(paper, linestyle=":", color="black", label=f"paper: {paper:g}")
        axes.legend(frameon=False)
    write_atomic(path, to_png(figure, dpi=100))


def confusion(matrix, label_names: tuple[str, ...], path: Path) -> None:
    """Share of each true class (row) that was given each class (column); ``[K, K]`` counts."""
    k = len(label_names)
    side = min(4 + 0.28 * k, 16)
    figure = blank(side + 1, side)
    axes = figure.subplots()
    share = matrix / matrix.sum(1, keepdims=True).clip(min=1)
    image = axes.imshow(share, cmap="magma_r", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if k <= 50:
        names = [short(name) for name in label_names]
        axes.set_xticks(range(k), names, rotation=90)
        axes.set_yticks(range(k), names)
    if k <= 12:
        for i in range(k):
            for j in range(k):
                axes.text(j, i, str(int(matrix[i, j])), ha="center", va="center", fontsize=8,
                          color="white" if share[i, j] > 0.5 else "black")
    write_atomic(path, to_png(figure, dpi=100))


def calibration(bins, path: Path) -> None:
    """Accuracy against confidence, and below it how many images there are: a bar each bin of images, their summed confidence, right ones
    (``[bins, 3]``)."""
    figure = blank(4.2, 5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    places = (bins[:, 0].nonzero()[0] + 0.5) / len(bins)
    images, confidence, right = bins[bins[:, 0] > 0].T
    above.bar(places, right / images, 0.9 / len(bins), color=INHIBITION, label="right")
    above.plot(confidence / images, confidence / images, marker="o", color=EXCITATION, label="as many as confidence says")
    above.set(xlim=(0, 1), ylim=(0, 1.05), ylabel="share of these images that is right")
    above.legend(loc="upper left", frameon=False)
    below.bar(places, images, 0.9 / len(bins), color=GREY)
    below.set(yscale="log", xlabel="confidence: probability of the answer", ylabel="images")  # most lie in the last bins
    below.set_ylim(0.7, None)  # one image is seen
    below.yaxis.set_major_formatter("{x:g}")
    below.yaxis.set_minor_formatter(NullFormatter())
    write_atomic(path, to_png(figure, dpi=100))


def accuracy_by_steps(by_time: list[dict], early: list[dict], path: Path) -> None:
    """Accuracy after each number of time steps, and where early exit lies among them."""
    figure = blank(5, 3.6)
    axes = figure.subplots()
    axes.plot([row["time_steps"] for row in by_time], [row["top1"] for row in by_time], marker="o", color=INHIBITION,
              label="all take T steps")
    for row in early:
        axes.plot(row["average_steps"], row["top1"], marker="D", linestyle="", color=EXCITATION,
                  label=f"stop once {100 * row['confidence']:g} % sure")
    axes.set_xlabel("time steps (average)")
    axes.set_ylabel("top-1 accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    write_atomic(path, to_png(figure, dpi=100))
