"""One way out: data on stdout, everything said to a person on stderr."""

from __future__ import annotations

import json
import os
import sys
from enum import Enum
from pathlib import Path

from ..errors import UsageError
from ..files import to_csv


class Format(str, Enum):
    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"


class Whole(str, Enum):
    """Of what is one thing with parts, not rows."""

    table = "table"
    json = "json"


def note(text: str) -> None:
    """A line for the person, not for the pipe."""
    print(text, file=sys.stderr, flush=True)


def check_folder(output: Path | None) -> None:
    """Before work whose results are to lie there. Raises UsageError where it cannot become a folder."""
    if output is not None and output.exists() and not output.is_dir():
        raise UsageError(f"--output {output} is a file: name a folder")


def is_terminal(stream) -> bool:
    return hasattr(stream, "isatty") and stream.isatty()


def width(default: int = 100) -> int:
    import shutil

    return shutil.get_terminal_size((default, 24)).columns


def table(rows: list[dict], columns: dict[str, str] | None = None) -> str:
    """Aligned text. columns: key to heading, in order; numbers go to the right."""
    if not rows:
        return ""
    columns = columns or {key: key for key in rows[0]}
    cells = [[_cell(row.get(key)) for key in columns] for row in rows]
    widths = [max(len(h), *(len(r[i]) for r in cells)) for i, h in enumerate(columns.values())]
    right = [all(isinstance(row.get(k), (int, float, type(None))) for row in rows) for k in columns]

    def line(values) -> str:
        return "  ".join(v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right)).rstrip()

    return "\n".join([line(columns.values()), *(line(r) for r in cells)])


def _cell(value) -> str:
    return "-" if value is None or value == "" else str(value)


def render(rows: list[dict], format: Format, columns: dict[str, str] | None = None) -> str:
    if format is Format.json:
        return json.dumps(rows, indent=2, ensure_ascii=False)
    if format is Format.jsonl:
        return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    if format is Format.csv:
        return to_csv(rows).rstrip("\n")
    return table(rows, columns)


def plain() -> bool:
    """No colour, no bars: piped, or NO_COLOR."""
    return not is_terminal(sys.stdout) or "NO_COLOR" in os.environ
