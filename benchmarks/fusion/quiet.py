"""Whether this process has the processors to itself, and a wait until it has."""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

__all__ = ["SHARE", "Quiet", "Watch", "spin"]

SHARE = 0.95
"""Of a processor that a thread has to get."""
SLOWER = 1.1
"""Most time that a spin takes, over the fastest that this process has seen: a virtual machine's
processor can be another's without the share telling."""
PAUSE_S = 1.0
SPUN = bytes(1 << 25)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    """How busy the machine was before a case.

    Attributes:
        load: processes that ran or waited for a processor, over the last minute; this
            benchmark's own are among them.
        share: of the processors' time that as many threads got as will be used.
        waited_s: how long the case waited for more of it [s].
    """

    load: float
    share: float
    waited_s: float


def spin(threads: int) -> tuple[float, float]:
    """Fixed work in so many threads at once.

    Returns:
        The smallest share of a processor that one of them got, and the time of the slowest [s].
    """
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(_spin_once, range(threads)))
    return min(cpu_s / wall_s for cpu_s, wall_s in found), max(wall_s for _, wall_s in found)


def _spin_once(_: int) -> tuple[float, float]:
    cpu_s, wall_s = time.thread_time(), time.perf_counter()
    hashlib.sha256(SPUN)  # lets other threads run meanwhile
    return time.thread_time() - cpu_s, time.perf_counter() - wall_s


class Watch:
    """Waits for quiet, for a limited time over all cases of a process.

    Args:
        threads: that the cases use.
        patience_s: longest wait of all cases together [s].
    """

    def __init__(self, threads: int, patience_s: float) -> None:
        self._threads = threads
        self._left_s = patience_s
        self._fastest_s = min(spin(threads)[1] for _ in range(3))

    def wait(self) -> Quiet:
        """Return once a spin has the processors to itself, or when patience is at an end."""
        begun = time.perf_counter()
        while True:
            share, spin_s = spin(self._threads)
            self._fastest_s = min(self._fastest_s, spin_s)
            waited_s = time.perf_counter() - begun
            is_quiet = share >= SHARE and spin_s <= SLOWER * self._fastest_s
            if is_quiet or waited_s >= self._left_s:
                self._left_s = max(0.0, self._left_s - waited_s)
                return Quiet(load=os.getloadavg()[0], share=share, waited_s=waited_s)
            time.sleep(PAUSE_S)
