"""Times of contestants that take turns, in another order each round."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

__all__ = ["Times", "take_turns"]

WARM_UP = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """What each contestant took, by name.

    Attributes:
        least_us, median_us: over all rounds [us].
        rounds: how often each had its turn.
    """

    least_us: Mapping[str, float]
    median_us: Mapping[str, float]
    rounds: int

    def ratio(self, slow: str, fast: str) -> float:
        """Of the least times: what disturbs a call only ever makes it longer."""
        return self.least_us[slow] / self.least_us[fast]


def take_turns(calls: Mapping[str, Callable[[], object]], *, seconds: float, rounds: int) -> Times:
    """Time calls in rounds; what a call returns is freed before the next, outside of its time.

    Args:
        calls: contestants by name.
        seconds: at least so long for each on average [s].
        rounds: at least so many.
    """
    for call in [*calls.values()] * WARM_UP:
        call()
    taken_ns: dict[str, list[int]] = {name: [] for name in calls}
    order, chance, done = list(calls), random.Random(0), 0
    gc.collect()
    gc.disable()
    try:
        end = time.perf_counter() + seconds * len(calls)
        while done < rounds or time.perf_counter() < end:
            chance.shuffle(order)
            for name in order:
                call = calls[name]
                start = time.perf_counter_ns()
                result = call()
                taken_ns[name].append(time.perf_counter_ns() - start)
                del result
            done += 1
    finally:
        gc.enable()
    return Times(
        least_us={name: min(taken) / 1e3 for name, taken in taken_ns.items()},
        median_us={name: median(taken) / 1e3 for name, taken in taken_ns.items()},
        rounds=done,
    )
