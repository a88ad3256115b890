"""What the scripts here share: TITLE=FOLDER arguments, and parts of a page that a script writes, between two marks."""

from __future__ import annotations

from pathlib import Path

from eisnn_zoo.files import write_atomic


def titled(argument: str) -> tuple[str, str]:
    """("one H200", "runs/x") of "one H200=runs/x"; a title may hold more of these signs."""
    title, _, folder = argument.rpartition("=")
    return title.strip(), folder


def write_between(page: Path, name: str, body: str) -> None:
    """Replaces what stands between the marks of this name. Raises ValueError where the marks are missing."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, found, rest = page.read_text("utf-8").partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the marks {start} and {end} are missing")
    write_atomic(page, f"{before}{start}\n\n{body}\n\n{end}{after}")
