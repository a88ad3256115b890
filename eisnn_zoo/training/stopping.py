"""A run that is asked to stop: by a signal, after which what is being computed ends first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from ..errors import ZooError


class Stopped(ZooError):
    """Asked to stop, by a signal; everything is saved."""

    exit_code = 130


HANGUP = getattr(signal, "SIGHUP", None)  # of a terminal that is gone; Windows has none
SIGNALS = (signal.SIGINT, signal.SIGTERM, *filter(None, [HANGUP]))


@contextlib.contextmanager
def signals(ask: Callable[[], None]) -> Iterator[None]:
    """The first of SIGNALS calls ask; a second one raises KeyboardInterrupt, wherever the program is."""
    came = False

    def handle(_number, _frame) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True
        ask()

    with handled_by(handle):
        yield


@contextlib.contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> Iterator[None]:
    """SIGNALS go there, but for hang-ups that nohup ignores. In other threads than the main one, which get none, nothing is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS
              if number != HANGUP or signal.getsignal(number) != signal.SIG_IGN}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
