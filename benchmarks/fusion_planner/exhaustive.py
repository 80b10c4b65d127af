"""The best plan of a small region, by trying all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from weft.fusion.explore import Pattern, Scores, in_sequence
from weft.fusion.stitch import Stitcher

__all__ = ["best_of_all"]


def best_of_all(stitcher: Stitcher) -> float:
    """The time of the best of all plans, by the latency-evaluator [s]."""
    scores = Scores(stitcher.tasks, stitcher.host)
    best = float("inf")
    for plan in _partitions(list(range(len(stitcher.tasks.tasks)))):
        patterns = [frozenset(group) for group in plan]
        if any(scores.nanoseconds(pattern) is None for pattern in patterns):
            continue
        if _has_order(stitcher, patterns):
            best = min(best, stitcher.seconds(patterns))
    return best


def _has_order(stitcher: Stitcher, patterns: Sequence[Pattern]) -> bool:
    try:
        in_sequence(stitcher.tasks, patterns)
    except ValueError:
        return False
    return True


def _partitions(items: Sequence[int]) -> Iterator[list[list[int]]]:
    """All ways to part items into groups."""
    if not items:
        yield []
        return
    first, *rest = items
    for smaller in _partitions(rest):
        for at, group in enumerate(smaller):
            yield [*smaller[:at], [first, *group], *smaller[at + 1 :]]
        yield [[first], *smaller]
