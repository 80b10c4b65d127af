"""Pipelines over unlike devices: into which groups they are cut, and which group does which stage.

1. Each way to cut the kinds of devices into groups, with each number of micro-batches, is ordered
   by what it would take if work could be shared out in any proportion and nothing were sent. Pieces
   are priced on each kind of group, for each way to share a micro-batch out inside
   (`weft.parallel.pipeline.stage_sketch`).
2. For the most promising ones a dynamic programme says which group does which stage, and which
   pieces a stage has (`line_up`), at first roughly; schedules go through the simulator.
3. Ends of stages of the best are moved while that makes it shorter, and the best become plans.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from itertools import accumulate
from math import inf, prod
from typing import TypeAlias

from weft.core.divisors import divisors
from weft.core.errors import InfeasibleError
from weft.machine.topology import link_between
from weft.parallel.degrees import Degrees
from weft.parallel.depth import Views
from weft.parallel.exact.pipelines.line_up import Inside, Kind, LinedUp, LineUps
from weft.parallel.exact.pipelines.partition import Floats, Runs
from weft.parallel.exact.pipelines.unequal import as_added, crossing_s
from weft.parallel.pipeline.estimate import StageCost
from weft.parallel.pipeline.insides import MOST_GROUPS, insides, micro_batch_counts
from weft.parallel.pipeline.lots import Lot, lots
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.pipeline.stage_sketch import StageSketch
from weft.parallel.pipeline.staged import Lies, Shape, Staged, Staging
from weft.parallel.pipeline.standing import in_rank_order
from weft.parallel.plan import Level
from weft.parallel.planner import Progress
from weft.parallel.recompute import RECOMPUTATIONS
from weft.parallel.request import PlanRequest
from weft.parallel.rows import batch_rows

__all__ = ["UnlikeSearch"]

APART = {Level.FAST: 1.9, Level.BEST: 1.0}
"""Numbers of micro-batches that are tried, each over the next one at least. Chosen: pieces have to
be priced for each, and halves are the usual ones."""
ROUGHLY = {Level.FAST: 150, Level.BEST: 1000}
"""Ways to cut that are looked at roughly, those with the shortest step to expect. Derived: each
takes a twentieth of a second to a second."""
WORKED_OUT = {Level.FAST: 10, Level.BEST: 60}
"""Ways to cut that are worked out at most, the most promising first. Derived: of 99 and 318 ways to
cut TAG's testbed for BERT-large and VGG-19 the best was one of the first ten."""
NEAR = 1.25
"""Step of a way as it is roughly said to be over the best one, beyond which it is not worked out.
Derived: those were at most a tenth above it."""
SHORTER = 1.4
"""Step of a way as it is said to be over what is known to be possible, beyond which it is passed
over. Derived: where gradients of weights wait, steps were up to a quarter shorter than said."""
MOST_STATES = 1024
"""Numbers of groups of each kind that may be left, beyond which a way is passed over. Derived: each
limit of a round that is tried then takes a second with 100 pieces."""
SIMULATED = {Level.FAST: 2, Level.BEST: 6}
"""Line-ups of a way that are simulated, the best by their sums. Chosen."""
CHUNKS = (2, 3)
"""Stages of a group that are tried beside. Derived: each halving of the bubble is worth half as
much as the last."""
MADE = {Level.FAST: 2, Level.BEST: 5}
"""Pipelines that become plans. Chosen: each takes as long as an expert's."""
CLOSE = 1.05
"""Time of a pipeline by its pieces over that of the best plan, up to which it becomes a plan too.
Derived: pieces tell the step to two percent."""
FAR = 1.3
"""Time of the best pipeline by its pieces over what is known to be possible, beyond which its
stages are not moved. Derived: moving them made it at most a tenth shorter."""

TINY_S = 1e-12
"""Stands for nothing where it is divided by [s]."""

Costs: TypeAlias = Sequence[StageCost]
"""Of each piece."""
_Quickest: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
"""Of each piece, for a micro-batch and once a step [s]."""


@dataclass(frozen=True, slots=True)
class _Way:
    """How devices are cut into groups, and the batch into micro-batches."""

    lots: tuple[Lot, ...]
    micro_batches: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Devices of each group, in the order of ranks."""
        return tuple(lot.size for lot in self.lots for _ in range(lot.count))

    @property
    def shape(self) -> Shape:
        """With groups in the order of ranks."""
        return Shape(self.sizes, in_rank_order(len(self.sizes)), self.micro_batches)

    @property
    def firsts(self) -> tuple[int, ...]:
        """Of each lot, the number of its first group."""
        return tuple(accumulate((lot.count for lot in self.lots[:-1]), initial=0))

    def standing(self, kinds: tuple[int, ...]) -> tuple[int, ...]:
        """Which group does each stage, if each is the next one of a lot."""
        return tuple(self.firsts[kind] + kinds[:at].count(kind) for at, kind in enumerate(kinds))


@dataclass(frozen=True, slots=True)
class _Expected:
    """What to expect of a way: a round, and a step [s]."""

    round_s: float
    step_s: float


class UnlikeSearch:
    """Looks for the best pipeline of a program on unlike devices.

    Args:
        request: what to plan.
        views: short versions of a deep program; not used where something is pinned.
        progress: told in words what is going on.
        most_s: a step that is of no interest, since something else is known to be faster [s].

    Attributes:
        notes: lines for people about what was left undone.
        broken: why pins of stages cannot be kept, if they cannot anywhere.
    """

    def __init__(
        self, request: PlanRequest, views: Views | None, progress: Progress, most_s: float
    ) -> None:
        self.notes: tuple[str, ...] = ()
        self.broken: InfeasibleError | None = None
        self._request, self._progress, self._most_s = request, progress, most_s
        self._sketch = StageSketch(request, views)
        self._batch = batch_rows(request.program)
        self._level = request.level if request.level in WORKED_OUT else Level.FAST
        self._until_s = time.perf_counter() + request.time_limit_s
        self._found: dict[Staged, Staging] = {}
        self._quickest: dict[tuple[int, Lies], _Quickest] = {}

    def plans(self) -> list[PipelinePlan]:
        """The best, simulated as they will run, fastest first."""
        self._run()
        best = self._best()
        if not best or (best[0].fits and best[0].step_s > FAR * self._most_s):
            return []
        made: list[PipelinePlan] = []
        for staging in map(self._moved, best[: MADE[self._level]]):
            least_s = min((plan.prediction.step_s for plan in made if plan.fits), default=inf)
            if made and (staging.step_s > CLOSE * least_s or self._is_late()):
                break
            self._progress(f"building {staging.staged.schedule} on {staging.staged.shape.sizes}")
            plan = self._sketch.fitted(staging)
            made += [] if plan is None else [plan]
        return sorted(made, key=lambda plan: (not plan.fits, plan.prediction.step_s))

    def _is_late(self) -> bool:
        return time.perf_counter() > self._until_s

    def _best(self) -> list[Staging]:
        """The best of each shape and schedule, best first."""
        found: dict[object, Staging] = {}
        for own in sorted(self._found.values(), key=lambda own: own.rank):
            staged = own.staged
            found.setdefault((staged.shape, staged.schedule, staged.chunks), own)
        return list(found.values())

    def _run(self) -> None:
        """Work out the most promising ways, until time is up."""
        wanted = self._promising()[: WORKED_OUT[self._level]]
        for number, way in enumerate(wanted, start=1):
            if self._is_late():
                left = len(wanted) - number + 1
                self.notes += (f"time limit: {left} pipelines over unlike devices not worked out",)
                break
            self._progress(f"unlike groups {number} of {len(wanted)}: {_in_words(way)}")
            self._work_out(way)

    def _promising(self) -> list[_Way]:
        """Ways that may come near the best, by what the programme roughly says of them."""
        times: dict[_Way, float] = {}
        ways = self._ways()[: ROUGHLY[self._level]]
        for number, (way, expected) in enumerate(ways, start=1):
            if expected.step_s >= self._limit_s(times.values()):
                break
            if self._is_late():
                self.notes += ("time limit: not all pipelines over unlike devices were looked at",)
                break
            if number % 10 == 1:
                self._progress(f"unlike groups, roughly: {number}")
            # What recomputation costs has to be priced too, so it is left out where all fits.
            found = self._line_ups(way, repeats=False).rough(expected.round_s)
            if found is None:
                found = self._line_ups(way).rough(expected.round_s)
            if found is not None:
                times[way] = found.step_s(way.micro_batches)
        limit_s = self._limit_s(times.values())
        return [way for way in sorted(times, key=times.__getitem__) if times[way] <= limit_s]

    def _limit_s(self, times: Iterable[float]) -> float:
        """From which step on a way is passed over, by those of others [s]."""
        return min(NEAR * min(times, default=inf), SHORTER * self._most_s)

    def _priced(self, staged: Staged) -> Staging:
        if staged not in self._found:
            self._found[staged] = self._sketch.staging(staged)
        return self._found[staged]

    def _moved(self, staging: Staging) -> Staging:
        """A pipeline, its stages' ends moved by a piece while that makes it better."""
        better = True
        while better and not self._is_late():
            better = False
            for staged in self._sketch.shifted(staging.staged):
                other = self._priced(staged)
                if other.rank < staging.rank:
                    staging, better = other, True
                    break
        return staging

    def _ways(self) -> list[tuple[_Way, _Expected]]:
        """All that divide the batch, with what to expect of them, the most promising first."""
        cuts = list(lots(self._request.machine, MOST_GROUPS))
        few = [cut for cut in cuts if prod(lot.count + 1 for lot in cut) <= MOST_STATES]
        if few != cuts:
            left = len(cuts) - len(few)
            self.notes += (f"{left} ways to cut unlike devices have too many kinds of groups",)
        usual = set(_apart(divisors(self._batch), APART[self._level]))
        expected: dict[_Way, _Expected] = {}
        for way in (way for cut in few for way in self._with_counts(cut, usual)):
            if self._is_late():
                self.notes += ("time limit: not all unlike groups were priced",)
                break
            if self._may_be(way):
                expected[way] = self._expected(way)
        if not expected:
            self.broken = self._sketch.broken
        return sorted(expected.items(), key=lambda pair: pair[1].step_s)

    def _with_counts(self, cut: tuple[Lot, ...], usual: Set[int]) -> list[_Way]:
        """A cut with numbers of micro-batches; with its own if no usual one divides its rows."""
        batch, groups = self._batch, sum(lot.count for lot in cut)
        ranks = [range(lot.start(0), lot.start(1)) for lot in cut]
        possible = micro_batch_counts(self._request, groups, ranks)
        by_rows = [
            count for count in possible if all(batch // count % lot.size == 0 for lot in cut)
        ]
        chosen = {count for count in possible if count in usual}
        if chosen.isdisjoint(by_rows):
            chosen.update(_apart(by_rows, APART[self._level]))
        return [_Way(cut, count) for count in sorted(chosen)]

    def _may_be(self, way: _Way) -> bool:
        """Whether there are stages for all groups where pins want them, and ways to share out."""
        rows, groups = self._sketch.rows(way.micro_batches), len(way.sizes)
        if rows is None or not max(1, rows.pinning.num_stages) <= groups <= len(rows.pieces.order):
            return False
        is_pinned = self._sketch.may_be_pinned(way.micro_batches, groups)
        return is_pinned and all(self._insides(way))

    def _expected(self, way: _Way) -> _Expected:
        """What a step takes if groups share out pieces as they are fast, and send nothing.

        No piece is shared out, so no round is shorter than one on the kind that it is quickest on.
        """
        count, groups = way.micro_batches, len(way.sizes)
        quickest = [
            self._quickest_s(way, first, choices)
            for first, choices in zip(way.firsts, self._insides(way), strict=True)
        ]
        pairs = list(zip((lot.count for lot in way.lots), quickest, strict=True))
        even_s, finish_s = (
            1.0 / sum(number / max(sum(of[which]), TINY_S) for number, of in pairs)
            for which in (0, 1)
        )
        longest_s = max(map(min, zip(*(busy for busy, _ in quickest), strict=True)))
        round_s = max(even_s, longest_s)
        return _Expected(round_s, (count - 1) * round_s + groups * even_s + finish_s)

    def _quickest_s(self, way: _Way, group: int, choices: Sequence[Degrees]) -> _Quickest:
        """Of each piece, what a group takes for a micro-batch and once, shared out its best way."""
        count, lies = way.micro_batches, self._sketch.lies(way.shape)[group]
        if (count, lies) not in self._quickest:
            within = [
                [
                    (c.time.busy_s + c.survey_s, c.setup_s + c.finish_s)
                    for c in self._sketch.costs(count, lies, own, 0)
                ]
                for own in choices
            ]
            best = (min(of, key=lambda o: o[0] + o[1] / count) for of in zip(*within, strict=True))
            busy, finish = zip(*best, strict=True)
            self._quickest[count, lies] = (busy, finish)
        return self._quickest[count, lies]

    def _insides(self, way: _Way) -> list[tuple[Degrees, ...]]:
        """Of each lot, how its groups may share out a micro-batch."""
        return [insides(self._sketch, way.shape, first) for first in way.firsts]

    def _work_out(self, way: _Way) -> None:
        """Price the pipelines of a way that are worth it.

        Where there is room for what gradients of weights wait for, the same stages are best with
        and without waiting.
        """
        within, most = self._insides(way), SIMULATED[self._level]
        is_tight = False
        for line_up in self._line_ups(way).best()[:most]:
            staged = _staged(way, within, line_up)
            self._priced(staged)
            waiting = self._priced(replace(staged, schedule="zero-bubble"))
            is_tight |= not waiting.fits or waiting.repeats
            for interleaved in self._interleaved(staged):
                self._priced(interleaved)
        if is_tight:
            for line_up in self._line_ups(way, waits=True).best()[:most]:
                self._priced(replace(_staged(way, within, line_up), schedule="zero-bubble"))

    def _line_ups(self, way: _Way, *, repeats: bool = True, waits: bool = False) -> LineUps:
        """What looks for stages on the groups of a way.

        Args:
            way: how devices are cut into groups.
            repeats: whether stages may recompute to fit.
            waits: whether gradients of weights wait, and what they need is kept as well.
        """
        count, limits_bytes = way.micro_batches, self._sketch.limits_bytes
        lies = self._sketch.lies(way.shape)
        kinds: list[Kind] = []
        plain: list[Costs] = []
        for lot, first, choices in zip(way.lots, way.firsts, self._insides(way), strict=True):
            tables = [self._of_options(way, first, inside, repeats=repeats) for inside in choices]
            ways = tuple(_inside(options, waits=waits) for options in tables)
            kinds.append(
                Kind(lot.count, ways, min(limits_bytes[number] for number, _, _ in lies[first]))
            )
            plain.append(min((options[0] for options in tables), key=_busy_s))
        bounds = self._sketch.stage_bounds(count, len(way.sizes))
        assert bounds is not None  # ways without any are passed over
        sending = _Sending(self._request, way, plain)
        return LineUps(kinds, count, sending, bounds, waits=waits)

    def _of_options(self, way: _Way, group: int, inside: Degrees, *, repeats: bool) -> list[Costs]:
        """What pieces cost on a group, by option of recomputation."""
        count, lies = way.micro_batches, self._sketch.lies(way.shape)[group]
        options = (option if repeats else 0 for option in range(len(RECOMPUTATIONS)))
        return [self._sketch.costs(count, lies, inside, option) for option in options]

    def _interleaved(self, staged: Staged) -> Iterator[Staged]:
        """The same groups in the same order, with several stages each."""
        shape = staged.shape
        if shape.micro_batches % len(shape.sizes):
            return
        for chunks in CHUNKS:
            for cuts in self._sketch.cuts(shape, staged.inside, chunks):
                yield replace(staged, schedule="interleaved", chunks=chunks, cuts=cuts)


def _inside(options: Sequence[Costs], *, waits: bool) -> Inside:
    """What pieces take in one way to share a micro-batch out.

    Args:
        options: costs of pieces, by option of recomputation.
        waits: whether gradients of weights wait, and what they need is kept as well.
    """
    added = {id(costs): as_added(costs, inf, waits=waits) for costs in options}
    return Inside(
        Runs([added[id(costs)] for costs in options], 1, any_length=True),
        tuple(cost.setup_s + cost.finish_s for cost in options[0]),
    )


def _staged(way: _Way, within: Sequence[tuple[Degrees, ...]], line_up: LinedUp) -> Staged:
    """A line-up as a decision."""
    return Staged(
        shape=Shape(
            tuple(way.lots[kind].size for kind in line_up.kinds),
            way.standing(line_up.kinds),
            way.micro_batches,
        ),
        inside=tuple(
            within[kind][own] for kind, own in zip(line_up.kinds, line_up.ways, strict=True)
        ),
        schedule="1f1b",
        chunks=1,
        cuts=line_up.cuts,
    )


@dataclass(frozen=True, slots=True)
class _Sending:
    """What stages send to each other, priced for the way that is quickest for the whole program.

    Attributes:
        request: what to plan.
        way: how devices are cut into groups.
        costs: of pieces, on a group of each lot.
    """

    request: PlanRequest
    way: _Way
    costs: Sequence[Costs]

    def __call__(
        self, kind: int, number: int, after: int, after_number: int
    ) -> tuple[Floats, Floats]:
        """As `LineUps` asks for it."""
        one, two = self.way.lots[kind], self.way.lots[after]
        link = link_between(self.request.machine, one.start(number), two.start(after_number))
        return crossing_s(self.costs[kind], self.costs[after], one.size, two.size, link)


def _apart(counts: Iterable[int], times: float) -> list[int]:
    """The largest of some numbers, and of the others those that are so many times smaller."""
    found: list[int] = []
    for count in sorted(counts, reverse=True):
        if not found or count * times <= found[-1]:
            found.append(count)
    return found


def _busy_s(costs: Costs) -> float:
    return sum(cost.time.busy_s for cost in costs)


def _in_words(way: _Way) -> str:
    groups = ", ".join(f"{lot.count} of {lot.size}" for lot in way.lots)
    return f"{groups}; {way.micro_batches} micro-batches"
