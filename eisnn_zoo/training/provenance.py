"""The weights that a recipe begins from or is taught by: where they are, and what they may know already."""

from __future__ import annotations

from ..errors import UsageError
from ..locating import Located, locate
from .data import Data
from .reading import FOLDER
from .recipe import Recipe


def trained_weights(recipe: Recipe) -> dict[str, Located]:
    """The files of the weights that a recipe names, by its keys: what it starts from, and who teaches it."""
    found = {}
    for key in ("weights", "teacher"):
        if name := getattr(recipe, key):
            try:
                found[key] = locate(name)
            except UsageError as error:
                raise UsageError(f"{key} = {name}: {error}; --set {key}=RUN/best takes those of a run that trained them") from error
    return found


def doubts(recipe: Recipe, known: dict[str, str]) -> list[str]:
    """What makes an accuracy look higher, in a sentence each.

    Args:
        known: what :func:`who_knows_held_out` says of the recipe's weights.
    """
    return [
        f"{key} = {getattr(recipe, key)}: they may have been trained on images that are held out here, whose accuracy is then too "
        f"high ({why})" for key, why in known.items()]


def who_knows_held_out(recipe: Recipe, data: Data, trained: dict[str, Located]) -> dict[str, str]:
    """Which of its :func:`trained_weights` may know the images that are held out here, and why; those with other classes do not count."""
    why = {}
    for key, located in trained.items():
        facts = located.config.facts
        held_out = facts.get("held_out", "none")
        foreign = recipe.dataset == FOLDER and located.row is not None  # published weights were trained on the zoo's datasets
        if not data.held_out or foreign or classes_are_others(data, located):
            continue
        if facts.get("seed") != recipe.seed or not isinstance(held_out, int) or held_out < data.held_out:
            why[key] = f"seed and holdout: {facts.get('seed', 'unknown')}, {held_out}; here {recipe.seed}, {data.held_out}"
        elif (facts.get("data_identity", data.identity) != data.identity
              or _all_images(facts) not in (None, len(data.train) + data.held_out)):
            why[key] = "their data were others, of which others were held out"
        elif facts.get("knows_held_out"):
            why[key] = "they held them out, but the weights or the teacher that they came from did not"
    return why


def _all_images(facts: dict) -> int | None:
    """How many there were to train on, as published weights record it."""
    return n + facts["held_out"] if isinstance(n := facts.get("train_images"), int) else None


def classes_are_others(data: Data, located: Located) -> bool:
    """Whether weights answer with other classes than those of the data, or in another order."""
    return data.label_names != tuple(located.config.label_names)
