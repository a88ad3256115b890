"""Recipes as YAML files: found by name, read, and checked with the line of what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from pydantic import ValidationError

from ..errors import UsageError, did_you_mean
from ..shipped import shipped
from .recipe import AtKey, Recipe

TEXTS = tuple(key for key, field in Recipe.model_fields.items() if field.annotation is str)


class RecipeError(UsageError):
    """A recipe that cannot be used; the message is one sentence."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 2e-3 as a text, where people mean the number, and takes the last of two equal keys without a word. Aliases, by which
    a few lines can stand for billions, have no place in a flat recipe."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise RecipeError(f"line {event.start_mark.line + 1}: *{event.anchor} refers to another value: write the value itself")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise RecipeError(f"line {key.start_mark.line + 1}: a key must be a word or a number")
            if key.value in seen:
                raise RecipeError(f"line {key.start_mark.line + 1}: key {key.value!r} stands there twice")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


def recipe_folder() -> Path:
    """recipes/: inside the installed package, or at the root of a checkout."""
    return shipped("recipes", "recipes")


def recipe_names() -> list[str]:
    return sorted(p.stem for p in recipe_folder().glob("*.yaml"))


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe that is named or given as a path.

    Raises:
        RecipeError: there is none; the message has the nearest name.
    """
    if Path(name).suffix in (".yaml", ".yml") or Path(name).is_file():
        return Path(name)
    path = recipe_folder() / f"{name}.yaml"
    if "/" in str(name) or not path.is_file():
        raise RecipeError(f"there is no recipe {str(name)!r}"
                          + (did_you_mean(str(name), recipe_names()) or "; `eisnn-zoo recipes list` shows them all"))
    return path


def load_recipe(name: str | Path, overrides: dict[str, str] | None = None) -> Recipe:
    """Reads and checks a recipe by name or path; overrides are YAML texts by key.

    Raises:
        RecipeError: unreadable file, unknown key, wrong type or impossible value, with its line.
    """
    path = find_recipe(name)
    try:
        text = path.read_bytes()  # what PowerShell writes is UTF-16, as YAML may be
        root = yaml.compose(text, _Loader)
        values = yaml.load(text, _Loader)  # a SafeLoader
    except RecipeError as error:
        raise RecipeError(f"{path}, {error}") from None
    except OSError as error:
        raise RecipeError(f"cannot read recipe {path}: {error.strerror}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: 2024-99-99, which YAML takes for a date
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path} holds no 'key: value' lines")
    places = {key.value: f"{path}, line {key.start_mark.line + 1}" for key, _ in root.value}
    written = check_recipe(values, str(path), places) if overrides and "paper_top1" in values else None
    for key, value in (overrides or {}).items():
        values[key], places[key] = parse_value(key, value), f"--set {key}"
    recipe = check_recipe(values, str(path), places)
    if written and recipe.task != written.task and "paper_top1" not in (overrides or {}):
        return recipe.model_copy(update={"paper_top1": None, "paper_source": ""})  # it is not of this
    return recipe


def parse_value(key: str, text: str) -> object:
    """A value given as YAML text, as in --set; of a key that takes text, that text as it is. Raises RecipeError."""
    if key in TEXTS and not text.startswith(("'", '"')):
        return text
    try:
        return yaml.load(text, _Loader)
    except RecipeError as error:
        raise RecipeError(f"{key}={text}: {error}") from None
    except (yaml.YAMLError, RecursionError, ValueError):
        raise RecipeError(f"{key}={text}: the value is not YAML") from None


def check_recipe(values: dict, where: str, places: dict[str, str] | None = None) -> Recipe:
    """A Recipe from its values; where they stand, and places: each key, for the message. Raises RecipeError."""
    try:
        return Recipe(**{str(key): value for key, value in values.items()})
    except ValidationError as error:
        first, *others = error.errors()
        if first["loc"] and isinstance(values.get(first["loc"][0]), dict):  # {epoch: value} is meant, where a lone value could stand too
            first = next((e for e in others if e["loc"][0] == first["loc"][0] and str(e["loc"][1:2]).startswith("('dict")), first)
        cause = first.get("ctx", {}).get("error")
        key = cause.key if isinstance(cause, AtKey) else str(first["loc"][0])
        at = (places or {}).get(key, where)
        if first["type"] == "extra_forbidden":
            raise RecipeError(f"{at}: unknown key {key!r}" + did_you_mean(key, Recipe.model_fields)) from None
        if first["type"] == "missing":
            raise RecipeError(f"{at}: the key {key!r} is missing") from None
        reason = first["msg"].removeprefix("Value error, ")
        given = values.get(key)
        if isinstance(given, dict) and None in given.values():
            reason = "write a space after each colon, as in {0: 1, 30: 2}"
        raise RecipeError(f"{at}: {key}" + ("" if given is None else f" = {given!r}") + f": {reason}") from None
