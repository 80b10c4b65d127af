"""Where to cut a line of pieces into stages, if what crosses the cuts takes time too.

Runs that take equally long leave the least to wait for once the pipeline is full; but a cut through
an encoder's output or a wide activation is paid for in every micro-batch and direction. A step of
M micro-batches takes about

    step = sum of stages + sum of what crosses + (M - 1) x longest of both

For each limit on the longest, the cuts with the least sum are found stage by stage, over all places
where one may end.

Source: the objective and the enumeration of limits are those of Alpa's stage construction (Zheng et
al., arXiv 2201.12023, section 5.2), here with transfers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["sparing_cuts"]

Floats = npt.NDArray[np.float64]

LIMITS = tuple(1.25**n for n in range(9))
"""Longest stages that are tried, in multiples of the longest of even ones. Chosen: up to six times,
beyond which even three micro-batches wait longer than anything that crosses; and without one."""


def sparing_cuts(
    work_s: Sequence[Sequence[float]],
    crossing_s: Sequence[Sequence[float]],
    even: Sequence[int],
    rounds: float,
    bounds: Sequence[tuple[int, int]],
) -> tuple[int, ...] | None:
    """First piece of each stage but the first, of what is expected to be shortest.

    Args:
        work_s: of each stage, how long each piece takes there, both ways [s].
        crossing_s: of each stage but the first, how long what crosses takes if it begins at a
            piece, both ways together [s].
        even: first pieces of stages that take about as long; they are tried too if they may be.
        rounds: how often the longest is waited for: micro-batches less one, times the stages that
            take turns on a device.
        bounds: the lowest and the highest stage that each piece may be in, both rising.

    Returns:
        None if there are no stages within the bounds.

    Example:
        >>> work, crossing = [[2.0, 1.0, 1.0, 2.0]] * 2, [[0.0, 9.0, 9.0, 1.0]]
        >>> sparing_cuts(work, crossing, (2,), 1, bounds=[(0, 1)] * 4)
        (3,)
        >>> sparing_cuts(work, crossing, (2,), 1, bounds=[(0, 0)] * 2 + [(1, 1)] * 2)
        (2,)
    """
    ends = [np.concatenate(([0.0], np.cumsum(own))) for own in work_s]
    crossing = [np.asarray(own) for own in crossing_s]
    spans_s = _spans_s(work_s, ends, bounds)
    free = _least_sum(spans_s, crossing, np.inf)
    if free is None:
        return None
    stages = zip(spans_s, [0, *even], [*even, len(bounds)], strict=True)
    is_even_allowed = all(np.isfinite(own[first, end]) for own, first, end in stages)
    found = {free, tuple(even)} if is_even_allowed else {free}
    longest_s, free_s = max(_parts(ends, crossing, even)), max(_parts(ends, crossing, free))
    for limit in LIMITS:
        if limit * longest_s >= free_s:
            break  # the least sum of all is below this limit and those after it
        cuts = _least_sum(spans_s, crossing, limit * longest_s)
        found |= set() if cuts is None else {cuts}

    def expected_s(cuts: tuple[int, ...]) -> float:
        parts = _parts(ends, crossing, cuts)
        return sum(parts) + rounds * max(parts)

    return min(sorted(found), key=expected_s)


def _spans_s(
    work_s: Sequence[Sequence[float]], ends: Sequence[Floats], bounds: Sequence[tuple[int, int]]
) -> list[Floats]:
    """Of each stage, how long each run of pieces takes, by first piece and end [s].

    Infinitely long where the stage may not be the run. Stages that are alike share a table.
    """
    lowest, highest = (np.array(of) for of in zip(*bounds, strict=True))
    later = np.triu(np.ones((len(bounds) + 1,) * 2, dtype=bool), 1)
    known: dict[object, Floats] = {}
    found: list[Floats] = []
    for stage, (work, own) in enumerate(zip(work_s, ends, strict=True)):
        begins = np.append(highest >= stage, False)
        ending = np.concatenate(([False], lowest <= stage))
        key = (tuple(work), begins.tobytes(), ending.tobytes())
        if key not in known:
            may = later & begins[:, None] & ending[None, :]
            known[key] = np.where(may, own[None, :] - own[:, None], np.inf)
        found.append(known[key])
    return found


def _parts(ends: Sequence[Floats], crossing: Sequence[Floats], cuts: Sequence[int]) -> list[float]:
    """How long each stage takes, and what crosses each cut [s]."""
    bounds = [0, *cuts, len(ends[0]) - 1]
    stages = [own[b] - own[a] for own, a, b in zip(ends, bounds, bounds[1:], strict=False)]
    return [
        *map(float, stages),
        *(float(own[cut]) for own, cut in zip(crossing, cuts, strict=True)),
    ]


def _least_sum(
    spans_s: Sequence[Floats], crossing: Sequence[Floats], limit_s: float
) -> tuple[int, ...] | None:
    """Cuts with the least sum if nothing may take longer than a limit; none if there are none.

    Args:
        spans_s: of each stage, by its first piece and its end [s].
        crossing: as for `sparing_cuts`.
        limit_s: of each stage, and of what crosses [s].
    """
    count = len(spans_s[0])
    sums = np.full(count, np.inf)
    sums[0] = 0.0
    came_from: list[npt.NDArray[np.int64]] = []
    for stage, own in enumerate(spans_s):
        if stage:
            entry = np.append(crossing[stage - 1], np.inf)
            sums = np.where(entry <= limit_s, sums + entry, np.inf)
        through = np.where(own <= limit_s, sums[:, None] + own, np.inf)
        came_from.append(np.argmin(through, axis=0))
        sums = np.min(through, axis=0)
    if not np.isfinite(sums[-1]):
        return None
    cuts: list[int] = []
    at = count - 1
    for stage in reversed(range(1, len(spans_s))):
        at = int(came_from[stage][at])
        cuts.append(at)
    return tuple(reversed(cuts))
