"""One way out: data on stdout, everything said to a person on stderr."""

from __future__ import annotations

import codecs
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import TextIO

from ..errors import UsageError, ZooError
from ..files import to_csv

UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # control characters, but for the ends of lines and tabs
FILES = (".png", ".jpg", ".svg", ".pdf", ".html", ".json", ".csv", ".yaml", ".safetensors", ".onnx")  # that nobody calls a folder


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
    """A line for the person, not for the pipe; what would move a terminal's cursor, from a file of somebody else's, is replaced."""
    print(UNSEEN.sub("\N{REPLACEMENT CHARACTER}", text), file=sys.stderr, flush=True)


def check_folder(output: Path | None, option: str = "--output") -> None:
    """Before work whose results are to lie there. Raises UsageError where it cannot become a folder to write to."""
    if output is None:
        return
    if output.suffix.lower() in FILES and not output.is_dir():
        raise UsageError(f"{option} {output}: that is the name of a file: name a folder")
    there = next((path for path in (output, *output.parents) if path.exists()), None)
    if there is None:  # a drive of Windows
        raise UsageError(f"{option} {output}: there is no {output.anchor}: name another folder")
    if not there.is_dir():
        raise UsageError(f"{option} {output}: {there} is a file: name a folder")
    if not os.access(there, os.W_OK):
        raise UsageError(f"{option} {output}: nothing can be written into {there}: name another folder")


def check_file(output: Path, read: Iterable[str | Path] = (), suffix: str = "", what: str = "") -> None:
    """Before work whose result is to be this file.

    Args:
        read: what the command reads, which it is not to replace.
        suffix: that the name of what it writes ends in, unless it is a pipe or a device.
    Raises:
        UsageError: it cannot be written, or not without a loss.
    """
    if output.is_dir():
        raise UsageError(f"--output {output} is a folder: name a file")
    if not output.parent.is_dir():
        raise UsageError(f"--output {output}: there is no folder {output.parent}")
    if output.exists() and not output.is_file():
        return
    target = output.resolve()  # where a new file is written beside it, and renamed
    if not os.access(target.parent, os.W_OK):
        raise UsageError(f"--output {output}: nothing can be written into {target.parent}: name another folder")
    if target.exists() and not os.access(target, os.W_OK):
        raise UsageError(f"--output {output} is write-protected: name another file")
    if suffix and output.suffix.lower() != suffix:
        raise UsageError(f"--output {output}: the name of {what} ends in {suffix}")
    if target.is_file() and target in (Path(name).resolve() for name in read):
        raise UsageError(f"--output {output} is what is read: name another file")


def is_terminal(stream) -> bool:
    return hasattr(stream, "isatty") and stream.isatty()


def need(extra: str, what: str = "this command") -> None:
    """Raises ZooError where a distribution of the package's extra is not installed, or is too old for it."""
    if missing := list(_missing(extra)):
        raise ZooError(f'{what} needs {", ".join(missing)}: pip install "eisnn-zoo[{extra}]"')


def _missing(extra: str) -> Iterator[str]:
    """By what the installed package says of itself, so that pyproject.toml alone says what an extra holds."""
    from importlib import metadata  # not at start-up: every command would wait for it

    from packaging.requirements import Requirement

    try:
        requirements = metadata.requires("eisnn-zoo") or []
    except metadata.PackageNotFoundError:  # run from a source tree: nothing says what is needed
        return
    for needed in map(Requirement, requirements):
        if needed.marker is None or not needed.marker.evaluate({"extra": extra}):
            continue
        if needed.name == "eisnn-zoo":
            for other in needed.extras:
                yield from _missing(other)
            continue
        try:
            if not needed.specifier.contains(installed := metadata.version(needed.name), prereleases=True):
                yield f"{needed.name}{needed.specifier} (here is {installed})"
        except metadata.PackageNotFoundError:
            yield needed.name


def table(rows: list[dict], columns: dict[str, str] | None = None) -> str:
    """Aligned text. columns: key to heading, in order, no line of headings where all are empty; numbers go to the right, all of a column
    with as many decimals."""
    if not rows:
        return ""
    columns = columns or {key: key for key in rows[0]}
    values = [[row.get(key) for row in rows] for key in columns]
    right = [all(isinstance(v, (int, float, type(None))) for v in column) for column in values]
    cells = list(zip(*map(_cells, values, right)))
    widths = [max(len(h), *(len(r[i]) for r in cells)) for i, h in enumerate(columns.values())]

    def line(values) -> str:
        return "  ".join(v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right)).rstrip()

    head = [line(columns.values())] if any(columns.values()) else []
    return "\n".join([*head, *(line(r) for r in cells)])


def _cells(values: list, numbers: bool) -> list[str]:
    texts = ["-" if value is None or value == "" else str(value) for value in values]
    decimals = [len(text.partition(".")[2]) for value, text in zip(values, texts) if isinstance(value, float)]
    if not (numbers and decimals) or any("e" in text for text in texts):
        return texts
    return [text if value is None else f"{value:.{max(decimals)}f}" for value, text in zip(values, texts)]


def to_json(value, stream: TextIO | None = None, indent: int | None = None) -> str:
    """JSON for stream, stdout where None: with letters that it may lack as numbers."""
    encoding = getattr(stream or sys.stdout, "encoding", None) or "utf-8"
    return json.dumps(value, indent=indent, ensure_ascii=codecs.lookup(encoding).name != "utf-8")


def render(rows: list[dict], format: Format, columns: dict[str, str] | None = None) -> str:
    if format is Format.json:
        return to_json(rows, indent=2)
    if format is Format.jsonl:
        return "\n".join(to_json(row) for row in rows)
    if format is Format.csv:
        return to_csv(rows).rstrip("\n")
    return table(rows, columns)


def plain(stream: TextIO) -> bool:
    """Whether nothing but text is to be written: into a pipe or a file, or where NO_COLOR asks for it."""
    return not is_terminal(stream) or "NO_COLOR" in os.environ
