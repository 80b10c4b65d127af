"""How points become a kernel: phases, the loops that threads share out, and nests inside of these.

A kernel is a list of phases with a barrier between two. In a phase, threads share out the values
of the *outer* axes; for each of these everything that depends on it is computed while it is in a
core's caches: in *nests*, each a perfect loop nest over the axes that are left, the last of them in
vector lanes. What a nest hands to a later one is kept in a register if it is one number, else
in a tile buffer, or is computed again where that is cheaper. So the schemes of FusionStitching are:

    thread composition      points of one nest, in vector registers
    warp composition        a reduction over lanes, one number for the nests after it
    block composition       nests of one phase, through tile buffers in the first cache levels
    global composition      phases, through memory, in one parallel region
    kernel packing          phases that have nothing to do with one another

and beyond them, a reduction over outer axes adds up in buffers of each thread (so rows and columns
are reduced in one pass), which the phase that reads it adds up over threads.

Source: FusionStitching, arXiv 2009.10924, section 4.1; phases are AStitch's global scheme (ASPLOS
2022); thread buffers are weft's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from weft.fusion.points import Address, Buffer, Kind, Point, Points, Store

__all__ = [
    "Nest",
    "Outer",
    "Phase",
    "Schedule",
    "computed",
    "crossing_accesses",
    "fetched_ahead",
    "fits_own_cache",
    "phase_of",
    "places",
]

LANES = 16
"""Elements of a vector: 512 bits of float32. Narrower machines take two or four registers."""


@dataclass(frozen=True, slots=True)
class Outer:
    """An axis that threads share out, in blocks of so many values; 1 for single ones."""

    axis: int
    block: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Nest:
    """A perfect loop nest.

    Attributes:
        axes: its loops, the last one in vector lanes; none for plain numbers.
        points: what is computed because others need it: numbers, tile buffers, reductions.
        stores: what it writes to memory.
    """

    axes: tuple[int, ...]
    points: tuple[int, ...]
    stores: tuple[Store, ...]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What happens between two barriers.

    Attributes:
        outer: axes that threads share out, the slowest first.
        nests: in order, for each value of these.
        kept: points that are kept in a tile buffer or a number, for nests that follow.
        across: reductions that add up over outer axes, in buffers of each thread.
    """

    outer: tuple[Outer, ...]
    nests: tuple[Nest, ...]
    kept: frozenset[int]
    across: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A region's points in phases.

    Attributes:
        points: of the region.
        phases: in order.
        shared: where each point that a later phase reads is written.
        buffers: of the region, and behind them those of shared points.
        axis_order: all axes, those that move fastest in memory last.
        threads: 1 where the work is too little to be shared out; else those it was planned for.
        streams: whether outputs are stored past the caches.
    """

    points: Points
    phases: tuple[Phase, ...]
    shared: Mapping[int, Store]
    buffers: tuple[Buffer, ...]
    axis_order: tuple[int, ...]
    threads: int
    streams: bool = False

    def in_order(self, axes: Sequence[int]) -> tuple[int, ...]:
        """Axes, those that move fastest in memory last."""
        return tuple(axis for axis in self.axis_order if axis in axes)


def inner_axes(point_axes: Sequence[int], outer: Sequence[Outer]) -> tuple[int, ...]:
    """Axes of a point that loops inside of a phase walk."""
    whole = {own.axis for own in outer if own.block == 1}
    return tuple(axis for axis in point_axes if axis not in whole)


def is_across(point: Point, outer: Collection[Outer]) -> bool:
    """Whether a reduction adds up over axes that threads share out."""
    return point.kind is Kind.REDUCE and any(own.axis in point.over for own in outer)


AHEAD_BYTES = 131_072
"""Bytes of a place for one outer value up to which those of the next are fetched meanwhile.
Derived: with what is at work on, a few such places fill half of a core's second-level cache."""
OWN_CACHE_BYTES = 1_000_000
"""Bytes of all tensors up to which they are in a core's own cache anyway. Derived: the second-level
cache of most cores."""


def fits_own_cache(points: Points) -> bool:
    """Whether all tensors of a region are in a core's own cache anyway."""
    return sum(buffer.num_bytes for buffer in points.buffers) <= OWN_CACHE_BYTES


def fetched_ahead(schedule: Schedule, phase: Phase, nest: Nest) -> dict[tuple[int, Address], int]:
    """Places that a nest reads again, with the distance to those of the next outer value.

    The first nest that reads a place waits for memory while a later one computes; with
    prefetches in the later one, memory works while it does. Distances are in elements.
    """
    points = schedule.points
    if fits_own_cache(points):
        return {}
    at = phase.nests.index(nest)
    if not at or not nest.axes or not phase.outer or phase.outer[-1].block > 1:
        return {}
    readings = [_read_places(points, phase, other) for other in phase.nests[: at + 1]]
    before = [sum(place in reading for reading in readings[:-1]) for place in readings[-1]]
    found: dict[tuple[int, Address], int] = {}
    for place, times in zip(readings[-1], before, strict=True):
        buffer, address = place
        far = address.stride(phase.outer[-1].axis)
        inside = [axis for axis, _ in address.strides if axis in nest.axes]
        size = points.num_elements(inside) * points.buffers[buffer].dtype.num_bytes
        if times == 1 and far and address.stride(nest.axes[-1]) == 1 and size <= AHEAD_BYTES:
            found[place] = far
    return found


def _read_places(points: Points, phase: Phase, nest: Nest) -> list[tuple[int, Address]]:
    """Places that a nest loads from, each once."""

    def is_made_here(number: int) -> bool:
        elsewhere = number in phase.kept or points.points[number].over
        return number in nest.points or not elsewhere

    reached = points.reached(_roots(nest), is_made_here)
    loads = [points.points[number] for number in reached]
    return list(dict.fromkeys((p.buffer, p.address) for p in loads if p.kind is Kind.LOAD))


def _roots(nest: Nest) -> list[int]:
    """What a nest makes and what it stores."""
    return [*nest.points, *(store.point for store in nest.stores)]


def computed(points: Points, phase: Phase) -> list[int]:
    """Points of a phase, and the reductions of others that it reads."""
    made = {number for nest in phase.nests for number in nest.points}
    roots = [number for nest in phase.nests for number in _roots(nest)]
    return points.reached(roots, lambda number: not points.points[number].over or number in made)


def places(points: Points, phase: Phase) -> list[tuple[int, Address, bool]]:
    """Where a phase writes, and where it reads: buffer, address, and whether it is a store."""
    found: dict[tuple[int, Address, bool], None] = {}
    for nest in phase.nests:
        found.update(dict.fromkeys((s.buffer, s.address, True) for s in nest.stores))
    for number in computed(points, phase):
        point = points.points[number]
        if point.buffer >= 0:
            found[point.buffer, point.address, False] = None
    return list(found)


def crossing_accesses(points: Points, phase: Phase, nest: Nest) -> frozenset[tuple[int, Address]]:
    """Loads and stores whose elements lie together along the axis before the last one.

    They are transposed in squares. There are none where a sum needs the loops in another order.
    """
    if len(nest.axes) < 2:
        return frozenset()
    other, lane = nest.axes[-2:]
    sums = [points.points[n] for n in nest.points if points.points[n].kind is Kind.REDUCE]
    if any((other in point.over) != (lane in point.over) for point in sums):
        return frozenset()
    found = {(store.buffer, store.address) for store in nest.stores}
    found |= set(_read_places(points, phase, nest))
    return frozenset(
        (buffer, address)
        for buffer, address in found
        if address.stride(other) == 1 and abs(address.stride(lane)) > 1
    )


CHEAP = 3.0
"""Operations up to which a value is computed again rather than kept in a tile buffer. Derived: to
keep it takes a store, and to read it a load, each of them one of two or three in a cycle."""


def phase_of(
    points: Points,
    members: Collection[int],
    stores: Sequence[Store],
    outer: tuple[Outer, ...],
    axis_order: Sequence[int],
    weight: Mapping[int, float],
) -> Phase:
    """Put points in nests.

    Args:
        points: of the region.
        members: maps and reductions of this phase.
        stores: of what the phase makes, or of what it loads.
        outer: axes that threads share out.
        axis_order: all axes, the fastest in memory last.
        weight: operations of each map point.
    """
    return _Nesting(points, members, stores, outer, axis_order, weight).run()


class _Nesting:
    def __init__(
        self,
        points: Points,
        members: Collection[int],
        stores: Sequence[Store],
        outer: tuple[Outer, ...],
        axis_order: Sequence[int],
        weight: Mapping[int, float],
    ) -> None:
        self._points = points
        self._members = sorted(members)
        self._own = set(members)
        self._stores = stores
        self._outer = outer
        self._rank = {axis: at for at, axis in enumerate(axis_order)}
        self._weight = weight
        self._nest: dict[int, tuple[int, tuple[int, ...]]] = {}
        self._readers: dict[int, list[int]] = {number: [] for number in self._members}

    def run(self) -> Phase:
        for number in self._members:
            self._nest[number] = self._place(number)
            for read in self._points.points[number].reads:
                if read in self._own:
                    self._readers[read].append(number)
        stores_at = self._stores_by_nest()
        kept = self._kept(stores_at)
        across = tuple(n for n in self._members if is_across(self._points.points[n], self._outer))
        nests: list[Nest] = []
        wanted = {n for n in self._members if n in kept or self._is_reduce(n)}
        keys = {self._nest[n] for n in wanted} | set(stores_at)
        for key in sorted(keys):
            own = tuple(n for n in self._members if n in wanted and self._nest[n] == key)
            nests.append(Nest(axes=key[1], points=own, stores=tuple(stores_at.get(key, ()))))
        return Phase(
            outer=self._outer,
            nests=tuple(nests),
            kept=frozenset(kept),
            across=across,
        )

    def _is_reduce(self, number: int) -> bool:
        return self._points.points[number].kind is Kind.REDUCE

    def _walked(self, axes: Collection[int]) -> tuple[int, ...]:
        """Those of some axes that nests walk, the fastest in memory last."""
        return inner_axes(sorted(axes, key=self._rank.__getitem__), self._outer)

    def _place(self, number: int) -> tuple[int, tuple[int, ...]]:
        """Level and axes of the nest that computes a point, or adds it up."""
        point = self._points.points[number]
        if self._is_reduce(number):
            # It runs over all of its axes, also those that its operand does not vary along.
            own = self._walked({*self._points.points[point.reads[0]].axes, *point.over})
        else:
            own = self._walked(point.axes)
        level = 0
        for read in point.reads:
            if read not in self._own:
                continue
            at, axes = self._nest[read]
            same = axes == own and not self._is_reduce(read)
            level = max(level, at if same else at + 1)
        return level, own

    def _stores_by_nest(self) -> dict[tuple[int, tuple[int, ...]], list[Store]]:
        found: dict[tuple[int, tuple[int, ...]], list[Store]] = {}
        for store in self._stores:
            axes = {axis for axis, _ in store.address.strides} | set(
                self._points.points[store.point].axes
            )
            own = self._walked(axes)
            level = 0
            if store.point in self._own:
                at, walked = self._nest[store.point]
                same = walked == own and not self._is_reduce(store.point)
                level = at if same else at + 1
            found.setdefault((level, own), []).append(store)
        return found

    def _kept(self, stores_at: Mapping[tuple[int, tuple[int, ...]], Sequence[Store]]) -> set[int]:
        """Points that nests after their own read, unless they are cheap to compute again."""
        kept: set[int] = set()
        read_in = {
            number: [self._nest[reader] for reader in readers]
            for number, readers in self._readers.items()
        }
        for key, stores in stores_at.items():
            for store in stores:
                if store.point in read_in:
                    read_in[store.point].append(key)
        again: dict[int, float] = {}
        for number in self._members:
            point = self._points.points[number]
            if self._is_reduce(number):
                again[number] = 0.5
                continue
            again[number] = self._weight.get(number, 1.0) + sum(
                0.0 if read in kept else again.get(read, 0.5) for read in set(point.reads)
            )
            own = self._nest[number]
            later = any(at != own for at in read_in[number])
            smaller = any(len(at[1]) > len(own[1]) for at in read_in[number])
            if later and (again[number] > CHEAP or smaller):
                kept.add(number)
                again[number] = 0.5
        return kept
