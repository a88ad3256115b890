"""Pictures that come with the package: what the demo begins with, and what an export is checked on."""

from __future__ import annotations

from pathlib import Path

from .shipped import shipped


def examples_folder() -> Path:
    """A folder for each data set, of ``CLASS_n.png``: inside the installed package, or those of the tests in a checkout."""
    return shipped("example_images", "tests/data")
