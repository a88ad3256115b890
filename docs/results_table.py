"""Writes the table of results into README.md, from the table of weights: python docs/results_table.py"""

from __future__ import annotations

from pathlib import Path

from generated import between, write_between

from eisnn_zoo.catalog import MODELS
from eisnn_zoo.config import read_config
from eisnn_zoo.table import Weights, hub_folder, weights_of

README = Path(__file__).parent.parent / "README.md"


def rows() -> list[tuple[str, ...]]:
    out = []
    for model in MODELS.values():
        weights = weights_of(model.name)
        if not weights:
            continue
        ours = [w for w in weights if w.folder]
        released = f"{model.released_top1:.2f}" if model.released_top1 is not None else "none released"
        mine = "<br>".join(f"**{w.top1:.2f}** (`{w.tag}`)" for w in ours) or "not measured"
        how = "<br>".join("; ".join(filter(None, (w.obtained, _last_epoch(w), w.trained, f"T = {w.time_steps}" if w.time_steps else "")))
                          for w in ours)
        out.append((f"`{model.name}`", model.dataset.title if model.dataset else "", released, mine, how))
    return out


def _last_epoch(weights: Weights) -> str:
    """Its figure, where the best epoch is published."""
    facts = read_config(hub_folder() / weights.folder / "config.json").facts or {}
    return f"last epoch: {facts['top1_last']:.2f}" if facts.get("weights") == "best" and "top1_last" in facts else ""


def table() -> str:
    head = ("model", "dataset", "authors' checkpoint", "ours", "how ours was obtained")
    lines = [head, ("---", "---", "---:", "---:", "---"), *rows()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def updated(readme: str) -> str:
    return between(readme, "results", table())


if __name__ == "__main__":
    write_between(README, "results", table())
