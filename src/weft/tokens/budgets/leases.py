"""Leases of handles that a living process holds, renewed in the background."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress

from weft.core.errors import WeftError

__all__ = ["Leases"]

ROUNDS = 3
"""In which a lease is renewed before it ends. Chosen: two may fail."""


class Leases:
    """Renews what it was told of, as long as its process lives and it is not shut.

    Args:
        renew: puts off the end of the leases of handles, by their ids.
        lease_s: how long a lease is [s].
    """

    def __init__(self, renew: Callable[[Sequence[str]], None], lease_s: float) -> None:
        self._renew = renew
        self._pause_s = lease_s / ROUNDS
        self._open: set[str] = set()
        self._end = threading.Event()
        self._process = 0
        self._starting = threading.Lock()

    def add(self, handle: str) -> None:
        """Keep a handle."""
        if self._process != os.getpid():
            self._start()
        self._open.add(handle)

    def drop(self, handle: str) -> None:
        """Let a handle go."""
        self._open.discard(handle)

    def shut(self) -> None:
        """Renew no more."""
        self._end.set()
        self._open.clear()

    def _start(self) -> None:
        with self._starting:
            if self._process == os.getpid():
                return
            self._open.clear()  # a fork's handles are its parent's to keep
            self._end = threading.Event()
            self._process = os.getpid()
            arguments = (weakref.ref(self), self._end, self._pause_s)
            threading.Thread(target=_keep, args=arguments, name="leases", daemon=True).start()

    def renew_all(self) -> None:
        """Renew every handle that is kept."""
        ids = list(self._open.copy())
        # What fails now is tried again two rounds before the lease ends; a store that stays away
        # is reported by whoever settles.
        with suppress(WeftError):
            if ids:
                self._renew(ids)


def _keep(leases: weakref.ref[Leases], end: threading.Event, pause_s: float) -> None:
    while not end.wait(pause_s):
        own = leases()
        if own is None:
            return
        own.renew_all()
        del own
