"""What a user did or met, in one sentence that names the thing and the next step."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ZooError(Exception):
    """A failure; the command line prints the sentence and exits with 1."""

    exit_code = 1


class Damaged(ZooError):
    """A file or folder that cannot be read as what it should be."""


class UsageError(ZooError):
    """A request that cannot be meant; the command line exits with 2."""

    exit_code = 2


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The end of a sentence: the nearest of the names, if one is near."""
    near = difflib.get_close_matches(name, names, 1, 0.5)
    return f", did you mean {near[0]!r}?" if near else ""
