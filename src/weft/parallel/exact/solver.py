"""A flow programme in a thread of its own.

HiGHS works without the interpreter's lock, so plans can be simulated while it solves. Requests
are answered in the order in which they were made, each warm from the one before.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

from weft.parallel.exact.flow import FlowModel, Solution

__all__ = ["Solver"]

_Key = tuple[float, float]


class Solver:
    """Solves one programme at prices of memory and shares of hidden communication.

    Args:
        model: the programme; nobody else may solve it from now on.
        deadline_s: when to give up, on the clock of `time.perf_counter` [s].
    """

    def __init__(self, model: FlowModel, deadline_s: float) -> None:
        self._model = model
        self._deadline_s = deadline_s
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="weft-solver")
        self._asked: dict[_Key, Future[Solution]] = {}

    def ask(self, price_s_per_byte: float, hidden: float) -> None:
        """Have a solve done in the background; once for each request."""
        key = (price_s_per_byte, hidden)
        if key not in self._asked:
            self._asked[key] = self._thread.submit(self._model.solve, *key)

    def solution(self, price_s_per_byte: float, hidden: float) -> Solution:
        """What was asked for, or is asked for now.

        Raises:
            TimeoutError: the deadline passed.
            InfeasibleError: the programme has no optimum.
        """
        self.ask(price_s_per_byte, hidden)
        left_s = self._deadline_s - time.perf_counter()
        asked = self._asked[price_s_per_byte, hidden]
        return asked.result(timeout=min(max(left_s, 0.0), _LONGEST_WAIT_S))

    def close(self) -> None:
        """Stop HiGHS and end the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._model.stop()
        self._thread.shutdown(wait=True)


_LONGEST_WAIT_S = 1e6
"""Derived: eleven days; the system's clock takes no infinite wait."""
