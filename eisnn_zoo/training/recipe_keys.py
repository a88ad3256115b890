"""What a person can write into a recipe: every key, what it takes and what it means, from the Recipe's own fields."""

from __future__ import annotations

from typing import Literal, get_args, get_origin

import yaml
from pydantic_core import PydanticUndefined

from .recipe import OVER_EPOCHS, Recipe

WORDS = {int: "whole number", float: "number", str: "text", bool: "true, false"}


def recipe_keys() -> list[dict]:
    """A row a key: ``key``, ``takes``, ``by_epoch`` ({first epoch: value} is taken too), ``default`` (None: must be given), ``meaning``."""
    return [{"key": key, "takes": _takes(field.annotation), "by_epoch": key in OVER_EPOCHS,
             "default": None if field.default is PydanticUndefined else field.default, "meaning": field.description}
            for key, field in Recipe.model_fields.items()]


def annotated(recipe: Recipe) -> str:
    """The recipe as YAML with a comment at each key; read again, it is the same recipe."""
    lines = []
    for row in recipe_keys():
        text = yaml.safe_dump({row["key"]: getattr(recipe, row["key"])}, allow_unicode=True, width=float("inf"))
        first, *rest = text.splitlines()
        if rest and isinstance(getattr(recipe, row["key"]), str):  # a comment would become a part of it
            lines += [f"# {row['key']}: {explained(row)}", first, *rest]
            continue
        lines += [f"{first}  # {explained(row)}{'; also {first epoch: value}' if row['by_epoch'] else ''}", *rest]
    return "\n".join(lines)


def explained(row: dict) -> str:
    """The meaning of a key, and the choices where it takes one of some."""
    return row["meaning"] if row["takes"] in WORDS.values() else f"{row['meaning']} ({row['takes']})"


def _takes(kind) -> str:
    """A type in words; of several, the first: the others are None and {first epoch: value}."""
    if kind in WORDS:
        return WORDS[kind]
    if get_origin(kind) is Literal:
        return ", ".join(get_args(kind))
    return _takes(get_args(kind)[0])
