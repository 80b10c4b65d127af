"""End long work at a safe place when a signal asks for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

__all__ = ["asked_to_stop"]


@contextmanager
def asked_to_stop() -> Generator[list[int | None]]:
    """The signal that asked for an end, once one did: for long work that ends at a safe place.

    SIGINT and SIGTERM ask; what is under way goes on, until it looks. A second one ends it at once.
    Outside the main thread, which signals do not reach, nothing ever asks.

    Yields:
        A list of one: the signal's number, or None as long as none came.
    """
    asked: list[int | None] = [None]
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # What is ignored stays so: a run in the background of a script does not hear Ctrl-C.
    before = {number: own for number, own in found.items() if own is not signal.SIG_IGN}

    def ask(number: int, _: FrameType | None) -> None:
        asked[0] = number
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
