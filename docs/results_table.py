"""Writes the table of results into README.md, from the table of weights: python docs/results_table.py"""

from __future__ import annotations

from pathlib import Path

from generated import write_between

from eisnn_zoo.catalog import MODELS, Model
from eisnn_zoo.config import read_config
from eisnn_zoo.files import to_markdown
from eisnn_zoo.table import Weights, hub_folder, weights_of

README = Path(__file__).parent.parent / "README.md"
HEAD = ("model and weights", "dataset", "authors' checkpoint", "ours", "epoch chosen on", "last epoch", "recipe", "trained")


def rows() -> list[tuple[str, ...]]:
    """One for each of our weights, and for each model of which there are only the authors'."""
    out = []
    for model in MODELS.values():
        weights = weights_of(model.name)
        ours = [w for w in weights if w.folder]
        if weights and not ours:
            out.append((f"`{model.name}`", *_known(model), "not measured", "", "", "", ""))
        out.extend((f"`{w.name}`", *_known(model), *_measured(w)) for w in ours)
    return out


def _known(model: Model) -> tuple[str, str]:
    released = "none released" if model.released_top1 is None else f"{model.released_top1:.2f}"
    return (model.dataset.title if model.dataset else "", released)


def _measured(weights: Weights) -> tuple[str, ...]:
    facts = read_config(hub_folder() / weights.folder / "config.json").facts
    dataset, tested = weights.model.dataset, facts.get("test_images")
    few = f" (of {tested} test images)" if dataset and tested not in (None, dataset.test_images) else ""
    steps = f", T = {weights.time_steps}" if weights.time_steps else ""
    chosen = {"best": f"{facts['held_out']:,} held out" if facts.get("held_out") else "test images", "last": "the last"}
    return (f"**{weights.top1:.2f}**{few}", chosen.get(facts.get("weights", ""), weights.obtained),
            f"{facts['top1_last']:.2f}" if "top1_last" in facts else "", f"`{weights.recipe}`", weights.trained + steps)


def table() -> str:
    return to_markdown(HEAD, rows(), (2, 3, 5))


if __name__ == "__main__":
    write_between(README, "results", table())
