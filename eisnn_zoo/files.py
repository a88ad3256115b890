"""Files appear complete or not at all; tables as text; paths as they are pasted."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from .errors import Damaged, ZooError

if TYPE_CHECKING:
    import numpy as np

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PATIENCE = 5.0  # seconds that Windows may keep a file from being replaced, while a scanner or a spreadsheet has it open
BUSY = (errno.EACCES, errno.EAGAIN)  # of a lock: another process has it
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of the disk
METRICS = {"epoch", "time_steps", "train_top1", "valid_top1", "seconds"}  # among what a run records of each epoch
OPENED = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/")  # names of what a process has open, files too


def is_stream(path: Path) -> bool:
    """Whether this is the name of a pipe, a device, or what the process has open, as /dev/stdout."""
    return str(path).startswith(OPENED) or (path.exists() and not path.is_file())


def write_atomic(path: str | Path, write: Callable[[Path], object] | bytes | str) -> None:
    """Writes beside path, syncs, and renames over it.

    Args:
        write: the content, or a function that writes a file at the path it is given.
    """
    path = Path(path)
    if is_stream(path):
        _write_through(path, write)
        return
    path = path.resolve()  # of a link, the file it leads to
    try:
        _replace(path, write)
    except OSError as error:
        # Of a copy, the system names what is copied.
        if error.errno in FULL or error.filename is None or Path(error.filename).name.startswith(f".{path.name}."):
            error.filename = str(path)  # the one that was asked for
        raise


def _replace(path: Path, write: Callable[[Path], object] | bytes | str) -> None:
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(fd)
    beside = Path(name)
    try:
        if callable(write):
            write(beside)
        else:
            beside.write_bytes(write.encode() if isinstance(write, str) else write)
        with open(beside, "rb+") as f:
            os.fsync(f.fileno())
        os.chmod(beside, path.stat().st_mode & 0o777 if path.is_file() else 0o666 & ~_umask())
        _rename(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def _rename(beside: Path, path: Path) -> None:
    given_up = time.monotonic() + PATIENCE
    while True:
        try:
            return os.replace(beside, path)
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > given_up:
                raise
            time.sleep(0.05)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _write_through(path: Path, write: Callable[[Path], object] | bytes | str) -> None:
    """Onto the end of a pipe, a device or a file that is open: nothing can be renamed over it. Raises IsADirectoryError."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"  # NUL is a device of Windows in every folder
        write_atomic(whole, write)
        with whole.open("rb") as source, path.open("ab") as into:
            shutil.copyfileobj(source, into)


def lock(file: IO) -> bool:
    """Whether the file, open for writing, is this process's alone from here until it closes it, by whichever handle, or ends; children
    that it forks do not have it. True as well where there are no such locks: some network disks, and Windows."""
    try:
        if fcntl:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in BUSY
    return True


@contextlib.contextmanager
def alone(folder: Path, wait: bool = True) -> Iterator[bool]:
    """One process at a time in this folder: what reads a table there, and writes it with more in it, loses nothing that another adds.
    Where there are no locks, on some network disks and on Windows, all are let in.

    Args:
        wait: for the others; else it yields False where there is one.
    """
    if not fcntl:
        yield True
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        free = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            free = error.errno not in BUSY
        yield free
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def quoted(path: str | Path) -> str:
    """A path as it can be pasted into a command."""
    return subprocess.list2cmdline([str(path)]) if sys.platform == "win32" else shlex.quote(str(path))


def numpy_reason(error: Exception) -> str:
    """What numpy says of a file, in one line. It takes strange ones for pickles, and says how to load them: nobody should."""
    return "it holds no plain arrays" if "pickle" in str(error) else " ".join(str(error).split())


def npz_arrays(path: Path, *names: str, optional: str = "") -> list[np.ndarray]:
    """Arrays of an ``.npz`` file by their names, and the optional one (empty where there is none). Raises Damaged."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = [data[name] for name in names]
            return [*arrays, data[optional] if optional in data else np.empty(0)] if optional else arrays
    except Exception as error:  # numpy raises all kinds on damaged files
        raise Damaged(f"{path} is no sound .npz file with {', '.join(names)}: {numpy_reason(error)}") from error


def to_csv(rows: Sequence[dict], header: bool = True) -> str:
    """Rows as CSV: all keys of all rows, as they first come."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def to_markdown(head: Sequence[str], rows: Iterable[Sequence], right: Container[int] = ()) -> str:
    """Rows of cells as a table of Markdown; right: the columns, from 0, that go to the right."""
    rule = "".join("---:|" if i in right else "---|" for i in range(len(head)))
    top, *lines = (f"| {' | '.join(map(str, row))} |" for row in (head, *rows))
    return "\n".join([top.replace("|  ", "| "), f"|{rule}", *lines])


def read_rows(path: Path) -> list[dict[str, str]]:
    """A CSV file, row by row; nothing where there is none yet."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def add_rows(path: Path, keys: Sequence[str], new: Sequence[dict]) -> list[dict]:
    """Adds rows to a CSV file, in place of those with the same values of these keys; all of its rows. What comes again keeps its place."""
    def key(row: dict) -> tuple[str, ...]:
        return tuple(str(row[k]) for k in keys)

    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path.parent):
        before, replaced = read_rows(path), {key(row) for row in new}
        places = list(dict.fromkeys(map(key, [*before, *new])))
        rows = sorted([row for row in before if key(row) not in replaced] + list(new), key=lambda row: places.index(key(row)))
        write_atomic(path, to_csv(rows))
    return rows


def read_metrics(run: Path) -> list[dict[str, float]]:
    """A run's metrics.csv, one row an epoch; none before the end of the first. Raises ZooError where it is damaged."""
    path = run / "metrics.csv"
    try:
        rows = [{key: float(value) for key, value in row.items()} for row in read_rows(path)]
        if missing := next(filter(None, (METRICS - row.keys() for row in rows)), None):
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    except (OSError, ValueError, TypeError) as error:
        raise ZooError(f"{path} is no table of a run's metrics: {error}") from error
    return rows
