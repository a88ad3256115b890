"""Parts of a page that a script writes, between two marks, and tables that a script adds to."""

from __future__ import annotations

import csv
from pathlib import Path

from eisnn_zoo.files import to_csv, write_atomic


def between(text: str, name: str, body: str) -> str:
    """text with what stands between the marks of this name replaced. Raises ValueError where the marks are missing."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the marks {start} and {end} are missing")
    return f"{before}{start}\n\n{body}\n\n{end}{after}"


def write_between(page: Path, name: str, body: str) -> None:
    write_atomic(page, between(page.read_text("utf-8"), name, body))


def add_rows(table: Path, key: str, new: list[dict]) -> list[dict]:
    """Adds rows to a CSV file, in place of those that have the same key; all of its rows. What is measured again keeps its place."""
    before = list(csv.DictReader(table.read_text().splitlines())) if table.exists() else []
    places = list(dict.fromkeys(row[key] for row in before + new))
    replaced = {row[key] for row in new}
    rows = sorted([row for row in before if row[key] not in replaced] + new, key=lambda row: places.index(row[key]))
    write_atomic(table, to_csv(rows))
    return rows
