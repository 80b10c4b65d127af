"""Which pieces make a stage, and how much of it runs twice: a dynamic programme over stages.

A step of a pipeline takes about

    (micro-batches - 1) * longest stage + sum of all stages and of what they send

so the programme looks for the least longest stage, and then, for several limits a little above
it, for the least sum of stages that keep below. A stage that does not fit recomputes as few of
its pieces as it has to, by the cheapest of three mixtures: nothing and cheap, nothing and full,
cheap and full. That is optimal for pieces that are alike; where they differ, the number of
pieces is worked out from their mean, and the simulator checks the result.

Source: stages by dynamic programming as in DAPPLE (Fan et al., PPoPP 2021) and Alpa (Zheng et al.,
OSDI 2022, section 5.2); recomputation within it is weft's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from weft.parallel.pipeline.estimate import StageCost

__all__ = [
    "MIXTURES",
    "Floats",
    "Ints",
    "Partition",
    "Recompute",
    "Runs",
    "Tightest",
    "partition",
    "tightest",
]

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

MIXTURES = ((0, 1), (0, 2), (1, 2))
"""Options of recomputation that a stage mixes, the lesser first: nothing 0, cheap 1, full 2."""
SLACKS = (1.0, 1.01, 1.03, 1.06, 1.1, 1.2)
"""Limits of a stage that are tried, over the least longest stage. Derived: a longer stage pays
only where the sum of all gets smaller by as many times as there are micro-batches."""


@dataclass(frozen=True, slots=True)
class Recompute:
    """The first `more` pieces of a stage follow option `greater`, the others `lesser`."""

    lesser: int
    greater: int
    more: int

    def option(self, position: int) -> int:
        """Option of the piece at a position within the stage."""
        return self.greater if position < self.more else self.lesser


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


class Runs:
    """Costs of all runs of pieces that may be a stage, by first piece and length.

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
        lengths = np.arange(1, self.longest + 1)
        self._last = np.arange(count)[:, None] + lengths[None, :]
        self._outside = self._last > count
        self._last[self._outside] = count
        self._lengths = np.broadcast_to(lengths, self._last.shape)
        self._seconds = [self._sums([c.time.busy_s for c in costs]) for costs in by_option]
        self._kept = [self._kept_bytes(costs) for costs in by_option]
        self.hops = np.array([0.0, *hops])[self._last] if hops else np.zeros(self._last.shape)
        self.hops[self._last == count] = 0.0
        first = by_option[0]
        self._transient = [self._maxima([c.transient_bytes for c in costs]) for costs in by_option]
        self._lasting = self._sums([c.lasting_bytes for c in first])
        self._sums_bytes = self._sums([c.sums_bytes for c in first])
        self._finish = self._maxima([c.finish_bytes - c.sums_bytes for c in first])

    def costs(self, in_flight: float, limit_bytes: float) -> tuple[Floats, Ints, Ints]:
        """The quickest way for each run to fit.

        Args:
            in_flight: micro-batches whose activations are kept at once.
            limit_bytes: limit of one device [bytes].

        Returns:
            Seconds of one micro-batch, the mixture, and how many pieces follow its greater
            option; infinitely many seconds where nothing fits.
        """
        seconds = np.full(self._last.shape, inf)
        mixture = np.zeros(self._last.shape, dtype=np.int64)
        more = np.zeros(self._last.shape, dtype=np.int64)
        room = limit_bytes - self._lasting - self._sums_bytes
        room[room < self._finish] = -inf
        for number, (lesser, greater) in enumerate(MIXTURES):
            transient = np.maximum(self._transient[lesser], self._transient[greater])
            held = in_flight * self._kept[lesser]
            saved = in_flight * (self._kept[lesser] - self._kept[greater]) / self._lengths
            with np.errstate(divide="ignore", invalid="ignore"):
                needed = np.ceil(np.where(saved > 0, (held + transient - room) / saved, inf))
            needed = np.maximum(needed, 1.0)
            needed[room - self._transient[lesser] - held >= 0] = 0.0
            paid = (self._seconds[greater] - self._seconds[lesser]) / self._lengths
            with np.errstate(invalid="ignore"):
                found = self._seconds[lesser] + np.where(needed > 0, needed * paid, 0.0)
            found[(needed > self._lengths) | self._outside] = inf
            better = found < seconds
            seconds[better] = found[better]
            mixture[better] = number
            more[better] = needed[better].astype(np.int64)
        return seconds, mixture, more

    def least_bytes(self, in_flight: float) -> Floats:
        """Memory of each run with the option of recomputation that needs least [bytes]."""
        fixed = self._lasting + self._sums_bytes
        running = [
            transient + in_flight * kept
            for transient, kept in zip(self._transient, self._kept, strict=True)
        ]
        needed = fixed + np.maximum(np.minimum.reduce(running), self._finish)
        needed[self._outside] = inf
        return needed

    def may_be(self, stage: int, bounds: Sequence[tuple[int, int]]) -> npt.NDArray[np.bool_]:
        """Which runs a stage may be.

        Args:
            stage: its number.
            bounds: the lowest and the highest stage that each piece may be in, both rising.
        """
        lowest, highest = (np.array(of) for of in zip(*bounds, strict=True))
        return (highest[:, None] >= stage) & (lowest[self._last - 1] <= stage)

    def _kept_bytes(self, costs: Sequence[StageCost]) -> Floats:
        opening = np.array([cost.opening_bytes for cost in costs])
        return self._sums([cost.time.kept_bytes for cost in costs]) + opening[:, None]

    def _sums(self, values: Sequence[float]) -> Floats:
        ends = np.concatenate([[0.0], np.cumsum(values)])
        return ends[self._last] - ends[:-1, None]

    def _maxima(self, values: Sequence[float]) -> Floats:
        padded = np.concatenate([values, np.full(self.longest, -inf)])
        shifted = padded[np.arange(self.num_pieces)[:, None] + np.arange(self.longest)[None, :]]
        return np.maximum.accumulate(shifted, axis=1)


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
    known: dict[tuple[float, float], _Table] = {}
    tables: list[_Table] = []
    for key in zip(in_flight, limit_bytes, strict=True):
        if key not in known:
            seconds, mixture, more = runs.costs(*key)
            own = seconds + runs.hops if waits else seconds
            known[key] = _Table(own, seconds + runs.hops, mixture, more)
        tables.append(known[key])
    last = len(tables) - 1
    if bounds is not None and any(low > 0 or high < last for low, high in bounds):
        tables = [
            replace(table, seconds=np.where(runs.may_be(stage, bounds), table.seconds, inf))
            for stage, table in enumerate(tables)
        ]
    shortest = _least(tables, np.maximum, inf)
    if shortest is None:
        return None
    longest, free = max(shortest.seconds), _least(tables, np.add, inf)
    assert free is not None
    found, least_s = [shortest, free], sum(free.seconds) + free.sent_s
    for before, slack in zip((0.0, *SLACKS), SLACKS, strict=False):
        # What the last limit forbade has a stage longer than that, and no less than the least sum.
        best = min(stages.step_s(micro_batches) for stages in found)
        if before and (micro_batches - 1) * longest * before + least_s >= best:
            break
        other = _least(tables, np.add, longest * slack * (1 + 1e-12))
        if other is not None:
            found.append(other)
    return min(found, key=lambda p: p.step_s(micro_batches))


@dataclass(frozen=True)
class _Table:
    """Of all runs that a stage may be: its seconds, those with what it sends, its mixture."""

    seconds: Floats
    with_hops: Floats
    mixture: Ints
    more: Ints

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
    bounds = _bounds(tables, np.maximum)
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
    bounds = _bounds([known[id(table)] for table in tables], join)
    if bounds is None:
        return None
    recompute: list[Recompute] = []
    seconds: list[float] = []
    sent_s = 0.0
    for table, i, j in zip(tables, bounds, bounds[1:], strict=False):
        at = (i, j - i - 1)
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


def _bounds(tables: Sequence[Floats], join: np.ufunc) -> list[int] | None:
    """Bounds of runs, one of each table in turn, whose joined costs are least; none if infinite."""
    num_pieces, longest = map(int, tables[0].shape)
    ends = np.arange(num_pieces + 1)[:, None]
    first = ends - np.arange(1, longest + 1)[None, :]
    outside = first < 0
    first[outside] = 0
    column = np.broadcast_to(np.arange(longest), first.shape)
    best = np.full(num_pieces + 1, inf)
    best[0] = 0.0
    came: list[Ints] = []
    for table in tables:
        reached = join(best[first], table[np.minimum(first, num_pieces - 1), column])
        reached[outside] = inf
        choice = np.argmin(reached, axis=1)
        came.append(choice)
        best = reached[np.arange(num_pieces + 1), choice]
    if best[num_pieces] == inf:
        return None
    bounds = [num_pieces]
    for back in reversed(came):
        bounds.append(bounds[-1] - 1 - int(back[bounds[-1]]))
    return bounds[::-1]
