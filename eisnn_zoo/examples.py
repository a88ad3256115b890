"""Pictures that come with the package: what the demo begins with, and what an export is checked on."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def examples_folder() -> Path:
    """A folder for each data set, of ``CLASS_n.png``: inside the installed package, or those of the tests in a checkout."""
    inside = Path(str(resources.files(__package__))) / "example_images"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[1] / "tests" / "data"
