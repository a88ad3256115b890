"""What comes with the package beside its code: weights, recipes, example pictures."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

PACKAGE = Path(str(resources.files(__package__)))


def shipped(inside: str, checkout: str) -> Path:
    """A folder by its name inside the installed package, where it is there, or in a checkout."""
    folder = PACKAGE / inside
    return folder if folder.is_dir() else PACKAGE.resolve().parent / checkout


def examples_folder() -> Path:
    """Pictures, a folder for each data set, of ``CLASS_n.png``: what the demo begins with, and what an export is checked on."""
    return shipped("example_images", "tests/data")
