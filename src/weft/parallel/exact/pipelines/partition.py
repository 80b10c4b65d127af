"""Which pieces make a stage, and how much of it runs twice: a dynamic programme over stages.

A step of a pipeline takes about

    (micro-batches - 1) * longest stage + sum of all stages and of what they send

so the programme looks for the least longest stage, and then, for several limits above it, for the
least sum of stages that keep below. A stage that does not fit recomputes as few of
its pieces as it has to, by the cheapest of three mixtures: nothing and cheap, nothing and full,
cheap and full. That is optimal for pieces that keep alike; where they differ, which ones a stage
recomputes is not chosen, but what the first ones save and cost is counted piece by piece.

Source: stages by dynamic programming as in DAPPLE (Fan et al., PPoPP 2021) and Alpa (Zheng et al.,
OSDI 2022, section 5.2); recomputation within it is weft's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from weft.parallel.pipeline.again import MIXTURES, Recompute
from weft.parallel.pipeline.estimate import StageCost

__all__ = [
    "Floats",
    "Ints",
    "Partition",
    "Runs",
    "Tightest",
    "partition",
    "partitions",
    "tightest",
]

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

SLACKS = (1.0, 1.01, 1.03, 1.06, 1.1, 1.2, 1.5, 2.0, 3.0, 5.0)
"""Limits of a stage that are tried, over the least longest stage. Derived: a longer stage pays
only where the sum of all gets smaller by as many times as there are micro-batches, which takes
more than a fifth only where transfers take as long as stages."""
SLOW = 0.1
"""Share of stages that transfers take, from which on all limits are tried. Chosen: from there on
schedules differ more in how long they wait for transfers than closed forms tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Stages.

    Attributes:
        cuts: first piece of each stage but the first.
        recompute: of each stage.
        seconds: of each stage for one micro-batch, forward and backward [s].
        sent_s: what a micro-batch takes from stage to stage and back, beside that [s].
    """

    cuts: tuple[int, ...]
    recompute: tuple[Recompute, ...]
    seconds: tuple[float, ...]
    sent_s: float = 0.0

    def step_s(self, micro_batches: int) -> float:
        """Time of all micro-batches [s]."""
        return (micro_batches - 1) * max(self.seconds) + sum(self.seconds) + self.sent_s


LONGEST = 3.0
"""Pieces of a stage over their mean, beyond which stages are not looked at. Derived: such a stage
would take three times as long as the mean, unless its pieces were that much shorter than others."""


ROUNDING = 1e-12
"""Share of what all pieces save that counts as nothing. Derived: sums of floats are as exact."""


class Runs:
    """Costs of all runs of pieces that may be a stage, by first piece and length.

    Where layers repeat, so do the pieces that come next, however long a run is. What runs cost is
    worked out once for each first piece that is followed by others than those before.

    Attributes:
        num_pieces: of the program.
        longest: pieces of a run at most.
        row: of each first piece, the row of tables in which its runs are.
        hops: what is sent after each run, by row and length [s].

    Args:
        by_option: cost of each piece, by option of recomputation.
        num_stages: stages that the pieces are cut into.
        hops: of each piece, what a micro-batch takes to the next one, if that is of another stage,
            and back [s]; nothing if not given.
        any_length: whether stages much longer than the mean are looked at too, as pins may ask.
    """

    def __init__(
        self,
        by_option: Sequence[Sequence[StageCost]],
        num_stages: int,
        hops: Sequence[float] = (),
        *,
        any_length: bool = False,
    ) -> None:
        self.num_pieces = len(by_option[0])
        count = self.num_pieces
        most = count if any_length else int(LONGEST * count / num_stages) + 4
        self.longest = min(count - num_stages + 1, most)
        self._first, self.row = _rows(by_option, hops, self.longest)
        self._last = self._first[:, None] + np.arange(1, self.longest + 1)
        self._outside = self._last > count
        self._last[self._outside] = count
        busy = [[c.time.busy_s for c in costs] for costs in by_option]
        self._ends = [np.concatenate([[0.0], np.cumsum(seconds)]) for seconds in busy]
        self._seconds = [self._sums(seconds) for seconds in busy]
        self._opening = [np.array([c.opening_bytes for c in costs]) for costs in by_option]
        kept = [np.array([c.time.kept_bytes for c in costs]) for costs in by_option]
        self._kept = [
            self._sums(of) + opening[self._first, None]
            for of, opening in zip(kept, self._opening, strict=True)
        ]
        self._alike = [[less is more for more in by_option] for less in by_option]
        self._saved: list[list[Floats]] = [
            [np.concatenate([[0.0], np.cumsum(np.maximum(less - more, 0.0))]) for more in kept]
            for less in kept
        ]
        self._sent = [0.0, *hops] if hops else [0.0] * (count + 1)
        self.hops = np.array(self._sent)[self._last]
        self.hops[self._last == count] = 0.0
        first = by_option[0]
        self._transient = [self._maxima([c.transient_bytes for c in costs]) for costs in by_option]
        self._lasting = self._sums([c.lasting_bytes for c in first])
        self._sums_bytes = self._sums([c.sums_bytes for c in first])
        self._finish = self._maxima([c.finish_bytes - c.sums_bytes for c in first])

    def sends_slowly(self, cuts: Sequence[int]) -> bool:
        """Whether transfers take so long that closed forms do not tell which stages are best.

        Args:
            cuts: first piece of each stage but the first.
        """
        return sum(self._sent[cut] for cut in cuts) > SLOW * float(self._ends[0][-1])

    def costs(self, in_flight: float, limit_bytes: float) -> tuple[Floats, Ints, Ints]:
        """The quickest way for each run to fit, by first piece and length.

        Args:
            in_flight: micro-batches whose activations are kept at once.
            limit_bytes: limit of one device [bytes].

        Returns:
            Seconds of one micro-batch, the mixture, and how many pieces follow its greater
            option; infinitely many seconds where nothing fits.
        """
        seconds, mixture, more = self.distinct_costs(in_flight, limit_bytes)
        return seconds[self.row], mixture[self.row], more[self.row]

    def distinct_costs(self, in_flight: float, limit_bytes: float) -> tuple[Floats, Ints, Ints]:
        """`costs` of runs that differ: those of a piece are in its `row`."""
        seconds = np.full(self._last.shape, inf)
        mixture = np.zeros(self._last.shape, dtype=np.int64)
        more = np.zeros(self._last.shape, dtype=np.int64)
        room = limit_bytes - self._lasting - self._sums_bytes
        room[room < self._finish] = -inf
        for number, (lesser, greater) in enumerate(MIXTURES):
            held = in_flight * self._kept[lesser]
            too_large = held + self._transient[lesser] > room
            found = np.where(too_large | self._outside, inf, self._seconds[lesser])
            needed = np.zeros(self._last.shape, dtype=np.int64)
            if not self._alike[lesser][greater]:
                rows, lengths = np.nonzero(too_large & ~self._outside)
                at = (rows, lengths)
                transient = np.maximum(self._transient[lesser], self._transient[greater])
                missing = (held[at] + transient[at] - room[at]) / in_flight
                needed[at], more_s = self._first_pieces(lesser, greater, at, missing)
                found[at] = self._seconds[lesser][at] + more_s
            better = found < seconds
            seconds[better] = found[better]
            mixture[better] = number
            more[better] = needed[better]
        return seconds, mixture, more

    def _first_pieces(
        self, lesser: int, greater: int, at: tuple[Ints, Ints], missing: Floats
    ) -> tuple[Ints, Floats]:
        """How many first pieces of runs follow the greater option, and what that costs.

        Args:
            lesser, greater: options of recomputation.
            at: rows of the runs, and their lengths less one.
            missing: what a micro-batch has to keep less in each [bytes].

        Returns:
            Numbers of pieces and seconds; infinitely many seconds where all of a run save too
            little.
        """
        saved = self._saved[lesser][greater]
        opening = self._opening[greater] - self._opening[lesser]
        first, last = self._first[at[0]], self._last[at]
        wanted: Floats = saved[first] + opening[first] + missing - ROUNDING * saved[-1]
        reached = np.maximum(np.searchsorted(saved, wanted), first + 1)
        enough = reached <= last
        reached = np.minimum(reached, last)
        longer = self._ends[greater] - self._ends[lesser]
        return reached - first, np.where(enough, longer[reached] - longer[first], inf)

    def least_bytes(self, in_flight: float) -> Floats:
        """Memory of each run with the option of recomputation that needs least [bytes]."""
        fixed = self._lasting + self._sums_bytes
        running = [
            transient + in_flight * kept
            for transient, kept in zip(self._transient, self._kept, strict=True)
        ]
        needed = fixed + np.maximum(np.minimum.reduce(running), self._finish)
        needed[self._outside] = inf
        return needed[self.row]

    def may_be(self, stage: int, bounds: Sequence[tuple[int, int]]) -> npt.NDArray[np.bool_]:
        """Which runs a stage may be.

        Args:
            stage: its number.
            bounds: the lowest and the highest stage that each piece may be in, both rising.
        """
        lowest, highest = (np.array(of) for of in zip(*bounds, strict=True))
        ends = np.arange(self.num_pieces)[:, None] + np.arange(self.longest)
        ends = np.minimum(ends, self.num_pieces - 1)
        return (highest[:, None] >= stage) & (lowest[ends] <= stage)

    def _sums(self, values: Sequence[float] | Floats) -> Floats:
        ends = np.concatenate([[0.0], np.cumsum(values)])
        return ends[self._last] - ends[self._first, None]

    def _maxima(self, values: Sequence[float]) -> Floats:
        padded = np.concatenate([values, np.full(self.longest, -inf)])
        shifted = padded[self._first[:, None] + np.arange(self.longest)]
        return np.maximum.accumulate(shifted, axis=1)


def _rows(
    by_option: Sequence[Sequence[StageCost]], hops: Sequence[float], longest: int
) -> tuple[Ints, Ints]:
    """Pieces that are followed by others than all before them, and of each piece which it is like.

    Args:
        by_option: cost of each piece, by option of recomputation; those that are alike are one.
        hops: of each piece, what is sent to the next [s].
        longest: pieces that are looked at together.
    """
    known: dict[object, int] = {}
    kinds = [
        known.setdefault((*map(id, options), *sent), len(known))
        for options, *sent in zip(
            zip(*by_option, strict=True), *([hops] if hops else []), strict=True
        )
    ]
    following = sliding_window_view(np.array([*kinds, *[-1] * (longest - 1)]), longest)
    _, first, row = np.unique(following, axis=0, return_index=True, return_inverse=True)
    return first, row.reshape(-1)


def partition(
    runs: Runs,
    in_flight: Sequence[float],
    limit_bytes: Sequence[float],
    micro_batches: int,
    bounds: Sequence[tuple[int, int]] | None = None,
    *,
    waits: bool = False,
) -> Partition | None:
    """The best stages.

    Args:
        runs: costs of runs of pieces.
        in_flight: of each stage, micro-batches whose activations are kept at once.
        limit_bytes: of each stage [bytes].
        micro_batches: parts of the batch.
        bounds: the lowest and the highest stage that each piece may be in, both rising; any if not
            given.
        waits: whether a stage does nothing else while it sends, as with several stages to a
            group, where all soon wait for the next.

    Returns:
        The stages; none if nothing fits.
    """
    found = partitions(runs, in_flight, limit_bytes, micro_batches, bounds, waits=waits)
    return found[0] if found else None


def partitions(
    runs: Runs,
    in_flight: Sequence[float],
    limit_bytes: Sequence[float],
    micro_batches: int,
    bounds: Sequence[tuple[int, int]] | None = None,
    *,
    waits: bool = False,
) -> list[Partition]:
    """The best stages under each limit that is tried, the best first; none if nothing fits.

    Args are those of `partition`.
    """
    known: dict[tuple[float, float], _Table] = {}
    tables: list[_Table] = []
    for key in zip(in_flight, limit_bytes, strict=True):
        if key not in known:
            seconds, mixture, more = runs.distinct_costs(*key)
            own = seconds + runs.hops if waits else seconds
            known[key] = _Table(runs.row, own, seconds + runs.hops, mixture, more)
        tables.append(known[key])
    last = len(tables) - 1
    if bounds is not None and any(low > 0 or high < last for low, high in bounds):
        tables = [table.only(runs.may_be(stage, bounds)) for stage, table in enumerate(tables)]
    shortest = _least(tables, np.maximum, inf)
    if shortest is None:
        return []
    longest, free = max(shortest.seconds), _least(tables, np.add, inf)
    assert free is not None
    found, least_s = [shortest, free], sum(free.seconds) + free.sent_s
    is_slow = runs.sends_slowly(shortest.cuts)
    for before, slack in zip((0.0, *SLACKS), SLACKS, strict=False):
        # What the last limit forbade has a stage longer than that, and no less than the least sum.
        best = min(stages.step_s(micro_batches) for stages in found)
        if before and not is_slow and (micro_batches - 1) * longest * before + least_s >= best:
            break
        other = _least(tables, np.add, longest * slack * (1 + 1e-12))
        if other is not None:
            found.append(other)
    return sorted(dict.fromkeys(found), key=lambda p: p.step_s(micro_batches))


@dataclass(frozen=True)
class _Table:
    """Of all runs that a stage may be: its seconds, those with what it sends, its mixture.

    By row and length; `row` is that of each first piece.
    """

    row: Ints
    seconds: Floats
    with_hops: Floats
    mixture: Ints
    more: Ints

    def only(self, allowed: npt.NDArray[np.bool_]) -> _Table:
        """The table with other runs than those allowed infinitely long."""
        return _Table(
            np.arange(len(self.row)),
            np.where(allowed, self.seconds[self.row], inf),
            self.with_hops[self.row],
            self.mixture[self.row],
            self.more[self.row],
        )

    def within(self, limit_s: float, join: np.ufunc) -> Floats:
        """What is joined, of stages below a limit."""
        values = self.seconds if join is np.maximum else self.with_hops
        return np.where(self.seconds <= limit_s, values, inf)


@dataclass(frozen=True, slots=True)
class Tightest:
    """The stage that needs most where stages are cut so that it needs least."""

    stage: int
    first: int
    last: int
    num_bytes: float


def tightest(runs: Runs, in_flight: Sequence[float]) -> Tightest:
    """What stands in the way of a pipeline that fits nowhere.

    Args:
        runs: costs of runs of pieces, as many pieces as stages or more.
        in_flight: of each stage, micro-batches whose activations are kept at once.

    Returns:
        The stage, its first and last piece, and what it needs.
    """
    tables = [runs.least_bytes(number) for number in in_flight]
    bounds = _bounds(tables, np.arange(runs.num_pieces), np.maximum)
    assert bounds is not None
    needs = [
        float(table[i, j - i - 1]) for table, i, j in zip(tables, bounds, bounds[1:], strict=False)
    ]
    stage = int(np.argmax(needs))
    return Tightest(stage, bounds[stage], bounds[stage + 1] - 1, needs[stage])


def _least(tables: Sequence[_Table], join: np.ufunc, limit_s: float) -> Partition | None:
    """Stages below a limit whose joined seconds are least."""
    known: dict[int, Floats] = {}
    for table in tables:
        if id(table) not in known:
            known[id(table)] = table.within(limit_s, join)
    bounds = _bounds([known[id(table)] for table in tables], tables[0].row, join)
    if bounds is None:
        return None
    recompute: list[Recompute] = []
    seconds: list[float] = []
    sent_s = 0.0
    for table, i, j in zip(tables, bounds, bounds[1:], strict=False):
        at = (int(table.row[i]), j - i - 1)
        lesser, greater = MIXTURES[int(table.mixture[at])]
        recompute.append(Recompute(lesser, greater, int(table.more[at])))
        seconds.append(float(table.seconds[at]))
        sent_s += float(table.with_hops[at] - table.seconds[at])
    return Partition(
        cuts=tuple(bounds[1:-1]),
        recompute=tuple(recompute),
        seconds=tuple(seconds),
        sent_s=sent_s,
    )


def _bounds(tables: Sequence[Floats], row: Ints, join: np.ufunc) -> list[int] | None:
    """Bounds of runs, one of each table in turn, whose joined costs are least; none if infinite.

    Args:
        tables: of each stage, costs by row and length.
        row: of each first piece.
        join: how costs are joined.
    """
    num_pieces, longest = len(row), int(tables[0].shape[1])
    first = np.arange(num_pieces + 1)[:, None] - np.arange(1, longest + 1)
    outside = first < 0
    at = (row[np.maximum(first, 0)], np.arange(longest)[None, :])
    by_end: dict[int, Floats] = {}
    for table in tables:
        if id(table) not in by_end:
            by_end[id(table)] = np.where(outside, inf, table[at])
    # Before where a run ends lie, from right to left, the places where it may begin.
    best = np.full(longest + num_pieces + 1, inf)
    best[longest] = 0.0
    before = sliding_window_view(best, longest)[: num_pieces + 1, ::-1]
    came: list[tuple[int, Ints]] = []
    for stage, table in enumerate(tables):
        low, high = stage + 1, min(num_pieces - len(tables) + stage + 1, (stage + 1) * longest)
        reached = join(before[low : high + 1], by_end[id(table)][low : high + 1])
        choice = np.argmin(reached, axis=1)
        came.append((low, choice))
        best[: longest + low] = inf
        best[longest + low : longest + high + 1] = reached[np.arange(high - low + 1), choice]
    if best[-1] == inf:
        return None
    bounds = [num_pieces]
    for low, choice in reversed(came):
        bounds.append(bounds[-1] - 1 - int(choice[bounds[-1] - low]))
    return bounds[::-1]
