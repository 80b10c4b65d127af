"""From points to a schedule: patterns in sequence, each on the outer axes that cost least."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from weft.fusion.cost import Host, footprint, phase_seconds
from weft.fusion.explore import Pattern, Scores, by_beam, greedily, in_sequence
from weft.fusion.points import Address, Buffer, Kind, Points, Store
from weft.fusion.schedule import LANES, Outer, Phase, Schedule, phase_of
from weft.fusion.tasks import Tasks, tasks_of

__all__ = ["PLANNERS", "Stitcher", "stitched"]

BLOCKS = (64, 256, 1024, 4096)
"""Blocks in which an axis may be shared out, in elements. Derived: a cache line of four vectors, up
to what fills a first-level cache with a few tensors."""
ALONE_BYTES = 4e6
"""Bytes of all tensors up to which one thread might do as well as all. Derived: it takes a hundred
times as long to read them as to have threads begin."""
SQUARES = 64
"""Block of an axis along which a tensor is transposed. Derived: a few squares of sixteen."""
MOST_SUBSETS = 4
"""Shared axes up to which all subsets of them are tried as outer axes; else beginnings only."""
PLANNERS = ("beam", "greedy", "none")
"""Ways to choose patterns: the search, its ablation, and one pattern for each task."""


def stitched(points: Points, host: Host, planner: str = "beam") -> Schedule:
    """The schedule of a region.

    Args:
        points: of the region.
        host: what it runs on.
        planner: one of `PLANNERS`.
    """
    tasks, best = tasks_of(points), list[tuple[float, Stitcher, list[Pattern]]]()
    hosts = [host] if footprint(points) > ALONE_BYTES or host.threads == 1 else [host, host.alone]
    for own in hosts:
        stitcher = Stitcher(tasks, own)
        plan = stitcher.best(planner)
        best.append((stitcher.seconds(plan), stitcher, plan))
    _, stitcher, plan = min(best, key=lambda entry: entry[0])
    return stitcher.schedule(plan)


@dataclass
class Stitcher:
    """Evaluates patterns as phases; each pattern once."""

    tasks: Tasks
    host: Host
    _phases: dict[Pattern, tuple[float, tuple[Outer, ...]]] = field(
        default_factory=dict["Pattern", "tuple[float, tuple[Outer, ...]]"]
    )

    def best(self, planner: str) -> list[Pattern]:
        """The patterns of the plan that takes least, by the latency-evaluator."""
        scores = Scores(self.tasks, self.host)
        alone = [frozenset({number}) for number in range(len(self.tasks.tasks))]
        if planner == "none":
            return alone
        plans = [greedily(scores)] if planner == "greedy" else by_beam(scores)
        return min([*plans, alone], key=self.seconds)

    def seconds(self, plan: Collection[Pattern]) -> float:
        """Time of a plan [s]."""
        return self.host.fork_ns * 1e-9 + sum(self.phase(pattern)[0] for pattern in plan)

    def phase(self, pattern: Pattern) -> tuple[float, tuple[Outer, ...]]:
        """Time of a pattern on its best outer axes, and these."""
        if pattern not in self._phases:
            timed = [(self._timed(pattern, outer), outer) for outer in self._outers(pattern)]
            self._phases[pattern] = min(timed, key=lambda entry: entry[0])
        return self._phases[pattern]

    def _timed(self, pattern: Pattern, outer: tuple[Outer, ...]) -> float:
        phase = self._nested(pattern, outer, ())
        return phase_seconds(self.tasks.points, phase, self.host, self.tasks.weight)

    def _nested(self, pattern: Pattern, outer: tuple[Outer, ...], extra: Sequence[Store]) -> Phase:
        own = [self.tasks.tasks[number] for number in sorted(pattern)]
        members = {point for task in own for point in task.cone}
        members |= {task.reduce for task in own if task.reduce >= 0}
        stores = [store for task in own for store in task.stores]
        return phase_of(
            self.tasks.points,
            members,
            [*stores, *extra],
            outer,
            self.tasks.axis_order,
            self.tasks.weight,
        )

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

    # --- the whole -------------------------------------------------------------------------

    def schedule(self, plan: Collection[Pattern]) -> Schedule:
        """The schedule of a plan."""
        points = self.tasks.points
        buffers = list(points.buffers)
        shared: dict[int, Store] = {}
        phases: list[Phase] = []
        for pattern in in_sequence(self.tasks, plan):
            _, outer = self.phase(pattern)
            extra: list[Store] = []
            for number in self._read_later(pattern, outer):
                store = self._kept_in_memory(number, buffers)
                shared[number] = store
                extra.append(store)
            phases.append(self._nested(pattern, outer, extra))
        return Schedule(
            points=points,
            phases=tuple(phases),
            shared=shared,
            buffers=tuple(buffers),
            axis_order=self.tasks.axis_order,
            threads=self.host.threads,
        )

    def _read_later(self, pattern: Pattern, outer: Sequence[Outer]) -> list[int]:
        """Reductions that are complete in their phase and read in others."""
        split = {own.axis for own in outer}
        found: list[int] = []
        for number in sorted(pattern):
            task = self.tasks.tasks[number]
            if task.reduce < 0 or task.over & split:
                continue
            if any(
                number in other.reads
                for at, other in enumerate(self.tasks.tasks)
                if at not in pattern
            ):
                found.append(task.reduce)
        return found

    def _kept_in_memory(self, number: int, buffers: list[Buffer]) -> Store:
        point = self.tasks.points.points[number]
        assert point.kind is Kind.REDUCE
        strides: list[tuple[int, int]] = []
        step = 1
        for axis in reversed(self.tasks.axis_order):
            if axis in point.axes:
                strides.append((axis, step))
                step *= self.tasks.points.sizes[axis]
        buffers.append(Buffer(name=f"kept{number}", dtype=point.dtype, num_elements=step))
        return Store(
            point=number, buffer=len(buffers) - 1, address=Address(0, tuple(sorted(strides)))
        )
