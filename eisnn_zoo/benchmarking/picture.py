"""The picture of `eisnn-zoo benchmark`."""

from __future__ import annotations

from pathlib import Path

from matplotlib.ticker import MaxNLocator

from ..figures import blank, plain, to_png
from ..files import write_atomic
from .contenders import PEERS


def speed(rows: list[dict], path: Path) -> None:
    """Images a second, median and quartiles: a panel for each batch size."""
    batches = sorted({row["batch"] for row in rows})
    names = list(dict.fromkeys((row["model"], row["backend"]) for row in rows))
    one = len({model for model, _ in names}) == 1
    titles = [backend if one else plain(f"{model} {backend}") for model, backend in names]
    room = max(2.5, 0.5 + 0.07 * max(map(len, titles)))  # inches
    figure = blank(room + 3 * len(batches), 1.6 + 0.32 * len(names))
    for axes, batch in zip(figure.subplots(1, len(batches), sharey=True, squeeze=False)[0], batches):
        here = {(row["model"], row["backend"]): row for row in rows if row["batch"] == batch}
        middle = [here[name]["images_per_s"] for name in names]
        spread = [[m - here[name]["p25"] for m, name in zip(middle, names)], [here[name]["p75"] - m for m, name in zip(middle, names)]]
        colours = ["#999999" if backend in PEERS else "#0072B2" for _, backend in names]
        bars = axes.barh(range(len(names)), middle, xerr=spread, color=colours, ecolor="#333333")
        axes.bar_label(bars, [f" {m:.0f}" if m >= 10 else f" {m:.1f}" for m in middle], fontsize=8)
        axes.set_yticks(range(len(names)), titles)
        axes.set_xlim(0, 1.3 * max(middle))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_title(f"batch {batch}", fontsize=10)
        axes.set_xlabel("images a second")
    axes.invert_yaxis()
    about = rows[0]
    threads = f"{about['threads']} thread{'s' if about['threads'] > 1 else ''}"
    figure.suptitle(f"{plain(names[0][0]) if one else 'Networks'} on {about['processor']}"
                    + (f", {threads}" if about["device"] == "cpu" else ""), fontsize=10)
    write_atomic(path, to_png(figure, dpi=100))
