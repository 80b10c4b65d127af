"""From points to a schedule: patterns in sequence, each on the outer axes that cost least."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from weft.core.errors import InputError
from weft.fusion.cost import Host, footprint, phase_bytes, phase_seconds
from weft.fusion.explore import Pattern, Scores, by_beam, greedily, in_sequence, is_acyclic
from weft.fusion.plan import FusionPlan, PlannedPhase
from weft.fusion.points import Address, Buffer, Kind, Points, Store
from weft.fusion.region import Region
from weft.fusion.schedule import LANES, Outer, Phase, Schedule, phase_of
from weft.fusion.tasks import Tasks, tasks_of
from weft.program.graph import Value
from weft.program.operators import Kind as OperatorKind
from weft.program.operators import operator

__all__ = ["PLANNERS", "Stitcher", "planned", "ranked", "scheduled"]

BLOCKS = (64, 256, 1024, 4096)
"""Blocks in which an axis may be shared out, in elements. Derived: a cache line of four vectors, up
to what fills a first-level cache with a few tensors."""
SQUARES = 64
"""Block of an axis along which a tensor is transposed. Derived: a few squares of sixteen."""
MOST_SUBSETS = 4
"""Shared axes up to which all subsets of them are tried as outer axes; else beginnings only."""
MENDED = 4
"""Plans that are mended: those of the beam, and the one with a pattern for each task."""
TRIALS = {12: 300, 10**9: 25}
"""By number of tasks, moves that are tried on a plan. Derived: enough for all of small ones;
in large ones each takes milliseconds."""
PLANNERS = ("beam", "greedy", "none")
"""Ways to choose patterns: the search, its ablation, and one pattern for each task."""


def planned(region: Region, points: Points, host: Host, planner: str = "beam") -> FusionPlan:
    """Decide how to compute a region.

    Args:
        region: what to compute.
        points: of the region.
        host: what it runs on.
        planner: one of `PLANNERS`.

    Raises:
        InputError: there is no such planner.
    """
    return ranked(region, points, host, planner)[0]


def ranked(region: Region, points: Points, host: Host, planner: str = "beam") -> list[FusionPlan]:
    """All plans that the search ends with, the one that is predicted to take least first.

    Args, raises: as of `planned`.
    """
    if planner not in PLANNERS:
        raise InputError(
            need=f"one of {', '.join(PLANNERS)}", got=repr(planner), hint="beam is the default"
        )
    tasks = tasks_of(points)
    small = footprint(points) <= host.alone_bytes and host.threads > 1
    stitchers = [Stitcher(tasks, own) for own in ((host, host.alone) if small else (host,))]
    plans = [
        _plan(region, planner, stitcher, patterns)
        for stitcher in stitchers
        for patterns in stitcher.best(planner)
    ]
    distinct = {(plan.threads, plan.phases): plan for plan in plans}
    return sorted(distinct.values(), key=lambda plan: plan.seconds)


def _plan(
    region: Region, planner: str, stitcher: Stitcher, patterns: Sequence[Pattern]
) -> FusionPlan:
    host, points, program = stitcher.host, stitcher.tasks.points, region.program
    computing = [
        number
        for number, node in enumerate(program.nodes)
        if operator(node.op).kind not in (OperatorKind.INPUT, OperatorKind.VIEW)
    ]
    unfused = sum(
        program.type_of(value).num_bytes
        for number in computing
        for value in (Value(number), *program.operands(number))
    )
    return FusionPlan(
        region=region.digest,
        planner=planner,
        threads=host.threads,
        streams=footprint(points) > host.streamed_bytes,
        phases=tuple(map(stitcher.planned_phase, in_sequence(stitcher.tasks, patterns))),
        seconds=stitcher.seconds(patterns),
        bound_s=region.num_bytes / host.bytes_per_ns(footprint(points)) * 1e-9,
        unfused_bytes=float(unfused),
        once_bytes=float(region.num_bytes),
        operators=len(computing),
    )


def scheduled(points: Points, plan: FusionPlan) -> Schedule:
    """The schedule that a plan means."""
    return _Scheduler(tasks_of(points), plan).run()


@dataclass
class Stitcher:
    """Evaluates patterns as phases; each pattern once."""

    tasks: Tasks
    host: Host
    _phases: dict[Pattern, tuple[float, tuple[Outer, ...]]] = field(
        default_factory=dict["Pattern", "tuple[float, tuple[Outer, ...]]"]
    )

    def best(self, planner: str) -> list[list[Pattern]]:
        """Plans to choose from, the one that takes least by the latency-evaluator first."""
        scores = Scores(self.tasks, self.host)
        alone = [frozenset({number}) for number in range(len(self.tasks.tasks))]
        if planner == "none":
            return [alone]
        if planner == "greedy":
            return sorted([greedily(scores), alone], key=self.seconds)
        plans = sorted([*by_beam(scores), alone], key=self.seconds)
        mended = [self._mended(scores, plan) for plan in plans[:MENDED]]
        return sorted([*mended, *plans], key=self.seconds)

    def _mended(self, scores: Scores, plan: Sequence[Pattern]) -> list[Pattern]:
        """A plan with tasks moved as long as the latency-evaluator says that this gains.

        The delta-evaluator knows no nests; what it gets wrong is mostly one task.
        """
        best, trials = list(plan), 0
        most = next(n for tasks, n in TRIALS.items() if len(self.tasks.tasks) <= tasks)
        while True:
            better: tuple[float, list[Pattern]] | None = None
            now = self.seconds(best)
            for moved in _moves(best):
                trials += 1
                if trials > most:
                    break
                changed = [pattern for pattern in moved if pattern not in best]
                if any(scores.nanoseconds(pattern) is None for pattern in changed):
                    continue
                seconds = self.seconds(moved)
                is_better = seconds < min(now, better[0] if better else now) * (1 - 1e-9)
                if is_better and is_acyclic(self.tasks, moved):
                    better = (seconds, moved)
            if better is None:
                return best
            best = better[1]

    def seconds(self, plan: Collection[Pattern]) -> float:
        """Time of a plan [s]."""
        return self.host.fork_ns * 1e-9 + sum(self.phase(pattern)[0] for pattern in plan)

    def phase(self, pattern: Pattern) -> tuple[float, tuple[Outer, ...]]:
        """Time of a pattern on its best outer axes, and these."""
        if pattern not in self._phases:
            timed = [(self.timed(pattern, outer), outer) for outer in self._outers(pattern)]
            self._phases[pattern] = min(timed, key=lambda entry: entry[0])
        return self._phases[pattern]

    def timed(self, pattern: Pattern, outer: tuple[Outer, ...]) -> float:
        """Time of a pattern on given outer axes [s]."""
        phase = self.nested(pattern, outer)
        return phase_seconds(self.tasks.points, phase, self.host, self.tasks.weight)

    def nested(self, pattern: Pattern, outer: tuple[Outer, ...]) -> Phase:
        """A pattern's tasks in nests."""
        return _nested(self.tasks, pattern, outer)

    def _outers(self, pattern: Pattern) -> Iterator[tuple[Outer, ...]]:
        """Ways to share out a pattern's work."""
        yield ()
        shared = Scores(self.tasks, self.host).shared_axes(pattern)
        axes = [axis for axis in self.tasks.axis_order if axis in shared]
        walked = {axis for number in pattern for axis in self.tasks.tasks[number].space}
        if not axes:
            return
        fastest = [axis for axis in self.tasks.axis_order if axis in walked][-1]
        if len(axes) <= MOST_SUBSETS:
            subsets = [c for n in range(1, len(axes) + 1) for c in combinations(axes, n)]
        else:
            subsets = [tuple(axes[:n]) for n in range(1, len(axes) + 1)]
        crossed = self._crossed(pattern, fastest)
        for chosen in subsets:
            whole = [
                Outer(axis, SQUARES if axis in crossed else 1) for axis in chosen if axis != fastest
            ]
            if fastest not in chosen:
                yield tuple(whole)
                continue
            size = self.tasks.points.sizes[fastest]
            for block in BLOCKS:
                if LANES <= block < 2 * size:
                    yield (*whole, Outer(fastest, block))

    def _crossed(self, pattern: Pattern, fastest: int) -> set[int]:
        """Axes along which elements lie together that are far apart along the fastest one."""
        places = {place for number in pattern for place in self.tasks.tasks[number].loads}
        places |= {
            (store.buffer, store.address)
            for number in pattern
            for store in self.tasks.tasks[number].stores
        }
        return {
            axis
            for _, address in places
            for axis, stride in address.strides
            if stride == 1 and axis != fastest and address.stride(fastest) > 1
        }

    def planned_phase(self, pattern: Pattern) -> PlannedPhase:
        """A pattern as a phase of a plan."""
        seconds, outer = self.phase(pattern)
        phase = self.nested(pattern, outer)
        return PlannedPhase(
            tasks=tuple(sorted(pattern)),
            outer=tuple((own.axis, own.block) for own in outer),
            seconds=seconds,
            num_bytes=phase_bytes(self.tasks.points, phase),
        )


def _moves(plan: Sequence[Pattern]) -> Iterator[list[Pattern]]:
    """Plans that differ by two patterns joined, or by one task that is somewhere else."""
    for first, second in combinations(plan, 2):
        yield [*(p for p in plan if p not in (first, second)), first | second]
    for pattern in plan:
        if len(pattern) == 1:
            continue
        rest = [p for p in plan if p != pattern]
        for task in sorted(pattern):
            alone = frozenset({task})
            yield [*rest, pattern - alone, alone]
            for other in rest:
                yield [*(p for p in rest if p != other), pattern - alone, other | alone]


def _nested(
    tasks: Tasks, pattern: Collection[int], outer: tuple[Outer, ...], extra: Sequence[Store] = ()
) -> Phase:
    """A pattern's tasks in nests; `extra` is written beside what they write."""
    own = [tasks.tasks[number] for number in sorted(pattern)]
    members = {point for task in own for point in task.cone}
    members |= {task.reduce for task in own if task.reduce >= 0}
    stores = [store for task in own for store in task.stores]
    return phase_of(tasks.points, members, [*stores, *extra], outer, tasks.axis_order, tasks.weight)


class _Scheduler:
    def __init__(self, tasks: Tasks, plan: FusionPlan) -> None:
        self._tasks = tasks
        self._plan = plan
        self._buffers = list(tasks.points.buffers)

    def run(self) -> Schedule:
        shared: dict[int, Store] = {}
        phases: list[Phase] = []
        for planned_phase in self._plan.phases:
            pattern = frozenset(planned_phase.tasks)
            outer = tuple(Outer(axis, block) for axis, block in planned_phase.outer)
            extra: list[Store] = []
            for number in self._read_later(pattern, outer):
                shared[number] = store = self._kept_in_memory(number)
                extra.append(store)
            phases.append(_nested(self._tasks, pattern, outer, extra))
        return Schedule(
            points=self._tasks.points,
            phases=tuple(phases),
            shared=shared,
            buffers=tuple(self._buffers),
            axis_order=self._tasks.axis_order,
            threads=self._plan.threads,
            streams=self._plan.streams,
        )

    def _read_later(self, pattern: Pattern, outer: Sequence[Outer]) -> list[int]:
        """Reductions that are complete in their phase and read in others."""
        split = {own.axis for own in outer}
        found: list[int] = []
        for number in sorted(pattern):
            task = self._tasks.tasks[number]
            if task.reduce < 0 or task.over & split:
                continue
            if any(
                number in other.reads
                for at, other in enumerate(self._tasks.tasks)
                if at not in pattern
            ):
                found.append(task.reduce)
        return found

    def _kept_in_memory(self, number: int) -> Store:
        point = self._tasks.points.points[number]
        assert point.kind is Kind.REDUCE
        points = self._tasks.points
        strides = points.rows([axis for axis in self._tasks.axis_order if axis in point.axes])
        size = points.num_elements(point.axes)
        self._buffers.append(Buffer(name=f"kept{number}", dtype=point.dtype, num_elements=size))
        address = Address(0, tuple(sorted(strides.items())))
        return Store(point=number, buffer=len(self._buffers) - 1, address=address)
