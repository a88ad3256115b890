"""What to predict on: files, folders, patterns, addresses and stdin, as a stream that never holds more than it needs."""

from __future__ import annotations

import glob
import sys
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from itertools import chain
from pathlib import Path

from ..errors import UsageError, ZooError
from .events import RECORDINGS
from .images import MAX_BYTES, ImageError, check_bytes

MAX_DOWNLOAD = 64 * 2**20
PICTURES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
            ".pnm", ".ico", ".avif", ".jp2", ".tga", ".heic", ".heif"}
"""Suffixes of what is taken from a folder, or RECORDINGS where it holds no picture; a file named by itself is tried whatever its name."""


def expand(arguments: Iterable[str]) -> Iterator[str]:
    """Names of single inputs, in order: folders recursively and sorted, patterns expanded, "-" and addresses as they are.

    Raises:
        UsageError: a pattern that matches nothing, or a folder without an input; an empty name.
    """
    for argument in arguments:
        if not argument:
            raise UsageError("an input is empty: name a file, a folder, a pattern or an address")
        if argument == "-" or is_url(argument):
            yield argument
        elif Path(argument).is_dir():
            yield from _some(_of_folder(Path(argument)), f"the folder {argument} holds no image, nor a recording")
        elif not Path(argument).exists() and glob.has_magic(argument):
            matches = (m for m in sorted(glob.iglob(argument, recursive=True)) if not Path(m).is_dir())
            yield from _some(matches, f"nothing matches {argument}")
        else:
            yield argument


def _of_folder(folder: Path) -> Iterator[str]:
    """Its pictures; where it holds none, its recordings."""
    pictures = walk(folder, PICTURES)
    first = next(pictures, None)
    return walk(folder, RECORDINGS) if first is None else chain([first], pictures)


def walk(folder: Path, suffixes: set[str], above: tuple[Path, ...] = ()) -> Iterator[str]:
    """Files with these suffixes in a folder and the folders in it, in order; hidden ones are left out."""
    here = folder.resolve()
    if here in above:  # a link that leads back
        return
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        yield str(folder)  # for an error of its own among the results
        return
    for entry in entries:
        if is_hidden(entry):
            continue
        if entry.is_dir():
            yield from walk(entry, suffixes, (*above, here))
        elif entry.suffix.lower() in suffixes and (entry.is_file() or not entry.exists()):  # no pipe; a dead link is an error of its own
            yield str(entry)


def is_hidden(path: Path) -> bool:
    """What systems and editors leave behind: no input, and no class."""
    return path.name.startswith(".")


def _some(names: Iterator[str], otherwise: str) -> Iterator[str]:
    first = next(names, None)
    if first is None:
        raise UsageError(otherwise)
    yield first
    yield from names


def from_list(path: str) -> Iterator[str]:
    """One input a line, as :func:`expand` takes them; a line that leads nowhere is given as it is, for an error of its own among
    the results. "-" reads the list from stdin. Raises UsageError where there is no such file."""
    for line in _lines(path):
        try:
            yield from expand([line])
        except (ZooError, ValueError, OSError):  # the latter: no file can have that name
            yield line


def _lines(path: str) -> Iterator[str]:
    if path == "-":
        yield from (line.removeprefix("\ufeff").rstrip("\r\n") for line in sys.stdin if line.strip())
        return
    try:
        with Path(path).open("rb") as file:  # once: it may be a pipe
            wide = file.peek(2)[:2] in (BOM_UTF16_LE, BOM_UTF16_BE)  # what PowerShell writes
            lines = TextIOWrapper(file, "utf-16" if wide else "utf-8-sig", "surrogateescape")
            yield from (line.rstrip("\r\n") for line in lines if line.strip())
    except OSError as error:
        raise UsageError(f"cannot read the list {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the list {path} is damaged: it begins as UTF-16 and does not go on as such") from error


def is_url(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def content(name: str) -> str | bytes:
    """What :func:`~eisnn_zoo.inference.images.open_image` takes for this name. Raises ImageError."""
    if name == "-":
        return sys.stdin.buffer.read(MAX_BYTES + 1)  # one more than open_image takes
    return _download(name) if is_url(name) else name


def _download(url: str) -> bytes:
    from http.client import HTTPException
    from urllib.error import URLError
    from urllib.request import Request, urlopen

    try:
        with urlopen(Request(url, headers={"User-Agent": "eisnn-zoo"}), timeout=30) as answer:
            data = answer.read(MAX_DOWNLOAD + 1)
    except (URLError, HTTPException, OSError, ValueError) as error:
        raise ImageError(f"{url}: could not be fetched ({getattr(error, 'reason', error)})") from error
    check_bytes(url, len(data), MAX_DOWNLOAD)
    return data
