"""A run that is asked to stop: by a signal, after which what is being computed ends first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from ..errors import ZooError


class Stopped(ZooError):
    """Asked to stop, by a signal; everything is saved."""

    exit_code = 130


@contextlib.contextmanager
def signals(ask: Callable[[], None]) -> Iterator[None]:
    """The first SIGINT or SIGTERM calls ask; a second one raises KeyboardInterrupt, wherever the program is.

    In other threads than the main one, to which no signals come, nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = False

    def handle(_number, _frame) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True
        ask()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
