"""Studies as files: a CSV and a PNG for each, and one HTML page that holds everything and needs nothing else."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from matplotlib.figure import Figure

from .. import __version__
from ..figures import to_png
from ..files import to_csv, write_atomic
from .prose import EVOLUTION, PROSE, Prose
from .subject import Study

PAGE = "report.html"


def write_study(folder: Path, study: Study) -> tuple[dict, tuple[Path, Path]]:
    """Writes ``<key>.csv`` and ``<key>.png`` into folder; (what the page needs of the study, the two paths)."""
    table, picture = folder / f"{study.key}.csv", folder / f"{study.key}.png"
    png = to_png(study.figure)
    write_atomic(table, to_csv(study.rows))
    write_atomic(picture, png)
    return section(study.key, (PROSE | EVOLUTION)[study.key], study.seen, still(png, study.figure), study.rows), (table, picture)


def section(key: str, prose: Prose, seen: list[str], picture: dict, rows: Sequence[dict] = ()) -> dict:
    """What the page needs of a section.

    Args:
        key: its anchor, and the name of the CSV file that holds its rows.
        picture: :func:`still` or :func:`moving`.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return {"key": key, **vars(prose), "seen": seen, **picture, "columns": columns,
            "rows": [[_cell(row.get(column)) for column in columns] for row in rows]}


def still(png: bytes, figure: Figure) -> dict:
    """A figure as a picture of the page."""
    width, height = figure.get_size_inches()
    return {"kind": "png", "data": base64.b64encode(png).decode(), "width": round(width * 96), "height": round(height * 96)}


def moving(gif: bytes) -> dict:
    """An animation as a picture of the page."""
    width, height = struct.unpack("<HH", gif[6:10])
    return {"kind": "gif", "data": base64.b64encode(gif).decode(), "width": width, "height": height}


def _cell(value) -> dict:
    if value is None:
        return {"text": "–", "number": True}
    if isinstance(value, float):
        return {"text": f"{value:.4g}" if abs(value) < 1e5 else f"{value:,.0f}", "number": True}
    return {"text": str(value), "number": isinstance(value, int)}


def render(title: str, subtitle: str, facts: dict[str, str], sections: list[dict], remark: str = "") -> str:
    """The page. facts: shown on top, name to value; remark: a sentence shown below."""
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=False)
    template = environment.from_string(resources.files(__package__).joinpath(PAGE).read_text("utf-8"))
    footer = " ".join(filter(None, (f"eisnn-zoo {__version__}.", remark, "Layers are numbered in the order in which they run.")))
    return template.render(title=title, subtitle=subtitle, facts=facts, sections=sections, footer=footer)


def write_page(folder: Path, *page) -> Path:
    """:func:`render` into folder; returns the file."""
    write_atomic(folder / PAGE, render(*page))
    return folder / PAGE
