"""One clean end for an interrupt (Ctrl-C), a termination and a hang-up.

Wherever the program is, an exception is raised, so that files under way are removed on the way out.
Where it is swallowed, in a destructor or a library's callback, it is raised again, until `main`
has it.
"""

from __future__ import annotations

import os
import signal
import time
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
_AGAIN = 2.0  # seconds after which an exception that nobody has taken is raised again
_AT_ONCE = 1.0  # seconds after which another signal ends the program as it is

_first: tuple[int, float] | None = None  # the signal, and when it came


class Stopped(KeyboardInterrupt):
    """One of the signals came; `code` is the exit code that says which."""

    def __init__(self, number: int) -> None:
        self.code = 128 + number


def install() -> None:
    """Those that are ignored, as under nohup, stay so."""
    for name in _NAMES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def taken() -> int | None:
    """The exception has arrived where the program ends: the exit code; None if there was none."""
    if _first is None:
        return None
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)
    return 128 + _first[0]


def _stop(number: int, _frame: FrameType | None) -> None:
    global _first
    now = time.monotonic()
    if _first is not None:
        if now - _first[1] > _AT_ONCE:
            os._exit(128 + number)
        return  # pressed twice: it is being done
    _first = number, now
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _again)
        signal.setitimer(signal.ITIMER_REAL, _AGAIN, _AGAIN)
    raise Stopped(number)


def _again(_number: int, _frame: FrameType | None) -> None:
    if _first is not None:
        raise Stopped(_first[0])
