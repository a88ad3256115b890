"""What a user did or met, in one sentence that names the thing and the next step."""

from __future__ import annotations


class ZooError(Exception):
    """A failure; the command line prints the sentence and exits with 1."""

    exit_code = 1


class Damaged(ZooError):
    """A file or folder that cannot be read as what it should be."""


class UsageError(ZooError):
    """A request that cannot be meant; the command line exits with 2."""

    exit_code = 2
