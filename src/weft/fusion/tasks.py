"""What a planner puts in phases: reductions and stores, with what they need.

Maps are no tasks: whoever needs one computes it. What a task needs of others are results of
reductions, and tensors that have to be written whole before they are read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from weft.fusion.cost import weights
from weft.fusion.points import Address, Kind, Points, Store

__all__ = ["Task", "Tasks", "axis_order", "tasks_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A reduction, or stores of one point.

    Attributes:
        reduce: the point of a reduction; -1 for stores.
        stores: what it writes.
        space: axes over which it is repeated, a reduction's own included.
        over: axes that a reduction sums over.
        cone: maps and lookups that it computes.
        loads: places that it reads: buffer and address.
        reads: tasks whose results it needs; some may be in its phase.
        after: tasks whose stores it reads, which may not be.
    """

    reduce: int
    stores: tuple[Store, ...]
    space: frozenset[int]
    over: frozenset[int]
    cone: frozenset[int]
    loads: frozenset[tuple[int, Address]]
    reads: frozenset[int]
    after: frozenset[int]

    @property
    def stored(self) -> int:
        """The point whose results it writes; -2 for a reduction."""
        return self.stores[0].point if self.stores else -2


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """All tasks of a region, those that others need first."""

    points: Points
    tasks: tuple[Task, ...]
    weight: Mapping[int, float]
    axis_order: tuple[int, ...]

    @cached_property
    def needs(self) -> tuple[frozenset[int], ...]:
        """Of each task, all that have to come before it or with it, however indirectly."""
        found: list[frozenset[int]] = []
        for task in self.tasks:
            direct = task.reads | task.after
            found.append(direct.union(*(found[other] for other in direct)))
        return tuple(found)


def tasks_of(points: Points) -> Tasks:
    """The tasks of a region."""
    return _Finder(points).run()


class _Finder:
    def __init__(self, points: Points) -> None:
        self._points = points
        self._reduces = [n for n, p in enumerate(points.points) if p.kind is Kind.REDUCE]

    def run(self) -> Tasks:
        """Reductions in the order of points, then stores; sorted by what needs what."""
        points, drafts = self._points, list[tuple[int, tuple[Store, ...]]]()
        wanted = self._wanted()
        drafts += [(n, ()) for n in self._reduces if n in wanted]
        grouped: dict[tuple[int, frozenset[int], int], list[Store]] = {}
        for store in points.stores:
            axes = frozenset(axis for axis, _ in store.address.strides)
            is_mid = points.buffers[store.buffer].name.startswith("mid")
            key = (store.point, axes, store.buffer if is_mid else -1)
            grouped.setdefault(key, []).append(store)
        drafts += [(-1, tuple(stores)) for stores in grouped.values()]
        number = {reduce: at for at, (reduce, _) in enumerate(drafts) if reduce >= 0}
        writers: dict[int, set[int]] = {}
        for at, (_, stores) in enumerate(drafts):
            for store in stores:
                writers.setdefault(store.buffer, set()).add(at)
        made = [self._task(reduce, stores, number, writers) for reduce, stores in drafts]
        return Tasks(
            points=points,
            tasks=_in_order(made),
            weight=weights(points),
            axis_order=tuple(axis_order(points)),
        )

    def _wanted(self) -> set[int]:
        """Points that something written depends on."""
        found: set[int] = set()
        stack = [store.point for store in self._points.stores]
        while stack:
            number = stack.pop()
            if number not in found:
                found.add(number)
                stack.extend(self._points.points[number].reads)
        return found

    def _task(
        self,
        reduce: int,
        stores: tuple[Store, ...],
        number: Mapping[int, int],
        writers: Mapping[int, Collection[int]],
    ) -> Task:
        points = self._points.points
        roots = [points[reduce].reads[0]] if reduce >= 0 else [s.point for s in stores]
        cone, loads, reads, after = (
            set[int](),
            set[tuple[int, Address]](),
            set[int](),
            set[int](),
        )
        stack, seen = list(roots), set[int]()
        while stack:
            at = stack.pop()
            if at in seen:
                continue
            seen.add(at)
            point = points[at]
            if point.buffer >= 0:
                loads.add((point.buffer, point.address))
                after |= set(writers.get(point.buffer, ()))
            if point.kind is Kind.REDUCE:
                reads.add(number[at])
                continue
            if point.kind in (Kind.MAP, Kind.LOOKUP):
                cone.add(at)
            stack.extend(point.reads)
        if reduce >= 0:
            space = {*points[reduce].axes, *points[reduce].over}
        else:
            space = {axis for s in stores for axis, _ in s.address.strides}
            space |= {axis for s in stores for axis in points[s.point].axes}
        return Task(
            reduce=reduce,
            stores=stores,
            space=frozenset(space),
            over=frozenset(points[reduce].over) if reduce >= 0 else frozenset(),
            cone=frozenset(cone),
            loads=frozenset(loads),
            reads=frozenset(reads),
            after=frozenset(after),
        )


def _in_order(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """Tasks behind what they need, with numbers to match."""
    order: list[int] = []
    done: set[int] = set()

    def visit(at: int) -> None:
        if at not in done:
            done.add(at)
            for other in sorted(tasks[at].reads | tasks[at].after):
                visit(other)
            order.append(at)

    for at in range(len(tasks)):
        visit(at)
    new = {old: at for at, old in enumerate(order)}
    return tuple(
        replace(
            tasks[old],
            reads=frozenset(new[other] for other in tasks[old].reads),
            after=frozenset(new[other] for other in tasks[old].after),
        )
        for old in order
    )


def axis_order(points: Points) -> list[int]:
    """All axes, those that move slowest in memory first.

    Each access votes for the order of its own axes by stride, with its number of elements; stores
    count twice.
    """
    place: dict[int, float] = dict.fromkeys(points.sizes, 0.0)
    total: dict[int, float] = dict.fromkeys(points.sizes, 0.0)
    accesses = [(p.address, 1.0) for p in points.points if p.kind is Kind.LOAD]
    accesses += [(store.address, 2.0) for store in points.stores]
    for address, votes in accesses:
        size = votes * points.num_elements([axis for axis, _ in address.strides])
        by_stride = sorted(address.strides, key=lambda pair: abs(pair[1]))
        for at, (axis, _) in enumerate(by_stride):
            place[axis] += size * at
            total[axis] += size
    return sorted(place, key=lambda axis: -place[axis] / total[axis] if total[axis] else 0.0)
