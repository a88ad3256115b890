"""Studies as files: a CSV and a PNG for each, and one HTML page that holds everything and needs nothing else."""

from __future__ import annotations

import base64
import struct
from importlib import resources
from pathlib import Path

from matplotlib.figure import Figure

from ..figures import to_png
from ..files import to_csv, write_atomic
from .prose import EVOLUTION, PROSE
from .subject import Study

PAGE = "report.html"


def write_study(folder: Path, study: Study) -> tuple[dict, tuple[Path, Path]]:
    """Writes ``<key>.csv`` and ``<key>.png`` into folder; (what the page needs of the study, the two paths)."""
    table, picture = folder / f"{study.key}.csv", folder / f"{study.key}.png"
    png = to_png(study.figure)
    write_atomic(table, to_csv(study.rows))
    write_atomic(picture, png)
    return _section(study, png), (table, picture)


def _section(study: Study, png: bytes) -> dict:
    prose = (PROSE | EVOLUTION)[study.key]
    columns = list(dict.fromkeys(key for row in study.rows for key in row))
    return {"key": study.key, "title": prose.title, "question": prose.question, "formula": prose.formula,
            "reading": prose.reading, "seen": study.seen, "file": f"{study.key}.csv", "columns": columns,
            "rows": [[_cell(row.get(key)) for key in columns] for row in study.rows],
            **_picture(png, study.figure)}


def _picture(png: bytes, figure: Figure) -> dict:
    width, height = figure.get_size_inches()
    return {"kind": "png", "data": base64.b64encode(png).decode(), "width": round(width * 96), "height": round(height * 96)}


def moving_section(gif: bytes, seen: list[str]) -> dict:
    """The animation of a training run."""
    prose = EVOLUTION["animation"]
    width, height = struct.unpack("<HH", gif[6:10])
    return {"key": "animation", "title": prose.title, "question": prose.question, "formula": "", "reading": prose.reading,
            "seen": seen, "file": "", "columns": [], "rows": [], "kind": "gif", "data": base64.b64encode(gif).decode(),
            "width": width, "height": height}


def plain_section(title: str, question: str, seen: list[str], figure: Figure, png: bytes, reading: str = "") -> dict:
    """A section that is no study: a picture and words; reading is HTML."""
    return {"key": "picture", "title": title, "question": question, "formula": "", "reading": reading, "seen": seen, "file": "",
            "columns": [], "rows": [], **_picture(png, figure)}


def _cell(value) -> dict:
    if value is None:
        return {"text": "–", "number": True}
    if isinstance(value, float):
        return {"text": f"{value:.4g}" if abs(value) < 1e5 else f"{value:,.0f}", "number": True}
    return {"text": str(value), "number": isinstance(value, int)}


def render(title: str, subtitle: str, facts: dict[str, str], sections: list[dict], footer: str) -> str:
    """The page. facts: shown on top, name to value."""
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=False)
    template = environment.from_string(resources.files(__package__).joinpath(PAGE).read_text("utf-8"))
    return template.render(title=title, subtitle=subtitle, facts=facts, sections=sections, footer=footer)


def write_page(folder: Path, *page) -> Path:
    """:func:`render` into folder; returns the file."""
    write_atomic(folder / PAGE, render(*page))
    return folder / PAGE
