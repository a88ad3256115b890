"""What two optimizers make of the same network: python docs/optimizers.py "SGD=runs/sgd" "Muon=runs/muon"

Each is a run recorded with --record, of the same model, seed and epochs. Writes results/optimizers.csv and docs/optimizers.png.
"""

from __future__ import annotations

import sys
from pathlib import Path

from generated import titled

from eisnn_zoo.analysis.evolution import read_evolution
from eisnn_zoo.analysis.snapshot import Snapshot
from eisnn_zoo.figures import label, layer_axis, new, percent, to_png
from eisnn_zoo.files import to_csv, write_atomic

HERE = Path(__file__).parent
TABLE, PICTURE = HERE.parent / "results" / "optimizers.csv", HERE / "optimizers.png"
PANELS = (("zeros", "W_EE at exactly 0"), ("gain_spread", "Spread of the gains g_E"), ("ratio", "I_sub over I_EE"),
          ("rate", "Firing rate"))
COLOURS = ("#c8a951", "#8c9fb1", "#b5303a")  # the start, then the optimizers


def rows(title: str, s: Snapshot) -> list[dict]:
    """One row for every layer of neurons."""
    own = {(p["layer"], p["parameter"]): p for p in s.parameters}
    return [{"run": title, "epoch": s.epoch, "layer": a["layer"], "zeros": own[a["layer"], "W_EE"]["zeros"],
             "gain_spread": own[a["layer"], "g_E"]["std"], "ratio": a["ratio"], "rate": a["mean"]} for a in s.activity]


def draw(table: list[dict]) -> bytes:
    figure, axes = new(1, len(PANELS), width=13, height=3.2)
    titles = list(dict.fromkeys(row["run"] for row in table))
    for ax, (key, title) in zip(axes.flat, PANELS):
        for colour, run in zip(COLOURS, titles):
            values = [row[key] for row in table if row["run"] == run]
            ax.plot(range(1, len(values) + 1), values, "o-", color=colour, label=run, lw=1.6, ms=4)
        label(ax, title, "layer")
        layer_axis(ax, len(values))
        if key in ("zeros", "rate"):
            percent(ax.yaxis)
    axes.flat[0].legend(frameon=False, fontsize=8)
    return to_png(figure)


def main() -> None:
    table: list[dict] = []
    for argument in sys.argv[1:]:
        title, folder = titled(argument)
        run = read_evolution(Path(folder))
        table += ([] if table else rows("at the start", run.first)) + rows(title, run.last)
    write_atomic(TABLE, to_csv(table))
    write_atomic(PICTURE, draw(table))


if __name__ == "__main__":
    main()
