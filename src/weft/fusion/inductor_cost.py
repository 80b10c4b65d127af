"""What Inductor would take for a region: the kernels that it makes, judged as weft's phases are.

Inductor's scheduler for C++ puts operators in one kernel that walk equal ranges, or ranges of
which the leading ones are equal. On tasks that is, in the order of what needs what:

    stores of as many elements                              one kernel
    a reduction and stores of as many elements as it reads  one kernel, if it reads rows
    reductions of the same rows                             one kernel
    reductions of the same columns                          one kernel, without whatever walks rows
    reductions to one number                                one kernel, without what follows from it
    a concatenation                                         each part written where it belongs: what
                                                            Inductor computes itself for nothing,
                                                            what was given as a copy
    what is looked up, or read in another order             computed where it is read
    a view that does not fit what is in memory              the same, number by number

where those that have neither a result nor an input in common stay apart. Such a kernel is a
phase to the latency-evaluator, so that what it errs in cancels out of a comparison. What it
does not know is added: columns are read in strips of one vector, bools are read and written one
by one, and some functions take longer than weft's.

Source: torch 2.13, `torch/_inductor/codegen/cpp.py`: `CppScheduling._why_fuse_nodes`,
`can_fuse_vertical_outer_loop`, `can_fuse_horizontal`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from weft.fusion.cost import STORED, Host, footprint, phase_bytes
from weft.fusion.explore import Pattern, Scores
from weft.fusion.points import Address, Buffer, Kind, Points
from weft.fusion.region import Region
from weft.fusion.schedule import LANES
from weft.fusion.stitch import Stitcher
from weft.fusion.tasks import Task, Tasks
from weft.program.graph import Program, Value
from weft.program.types import DType

__all__ = ["InductorKernel", "inductor_kernels", "inductor_seconds"]

MASK_READ, MASK_WRITTEN = 240.0, 700.0
"""Vector instructions that it takes to read sixteen bools, and to write them, which Inductor does
one by one. Measured: of 196,608 elements 57 ns and 167 ns for sixteen, of 0.23 ns an instruction
(AMD EPYC, one thread, torch 2.13)."""
DEARER = {
    "erf.default": 27.0,
    "exp.default": 10.0,
    "log.default": 24.0,
    "sigmoid.default": 11.0,
    "tanh.default": 86.0,
}
"""Vector instructions of functions beyond those of weft's. Measured as those of bools: 7.8, 3.5,
7.2, 5.2 and 22.8 ns for sixteen, of which weft takes 1.6, 1.1, 1.6, 2.8 and 3.0."""
TURNED_NS = 4.0
"""To compute an element alone, with the divisions that lead to it [ns]. Measured: the softmax of
scores by relative positions, 262,144 elements in three loops and more, takes 7.9 ms, where weft
takes 0.5."""
STRIPS = (1.2, 3.0)
"""Time of sums of columns over that of a pass over rows: in the first level of memory, and beyond.
Measured: sums of two tensors of 256 x 768 take 30 us, of which weft takes 26; backward passes of
LayerNorm beyond the caches take 2.7 to 3.8 times what their memory traffic takes."""
NEAR_BYTES = 3e6
"""Bytes of all tensors that count as the first level. Measured: as the strips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InductorKernel:
    """A kernel that Inductor is expected to make.

    Attributes:
        tasks: numbers of the tasks that are done in it; none if it copies parts of a concatenation.
        seconds: predicted [s].
        num_bytes: read and written, each place once, as `PlannedPhase.num_bytes` counts [bytes].
    """

    tasks: Pattern
    seconds: float
    num_bytes: float


def inductor_seconds(kernels: Sequence[InductorKernel], host: Host) -> float:
    """Time of a region's kernels, which are one function [s]."""
    return host.fork_ns * 1e-9 + sum(kernel.seconds for kernel in kernels)


def inductor_kernels(
    region: Region,
    tasks: Tasks,
    host: Host,
    made_beside: frozenset[int] = frozenset(),
    computed_there: frozenset[int] = frozenset(),
) -> tuple[InductorKernel, ...]:
    """The kernels that Inductor would make of a region.

    Args:
        region: what to compute.
        tasks: of the region.
        host: what it runs on.
        made_beside: numbers of inputs that Inductor computes, and may write where it likes.
        computed_there: numbers of inputs that it computes where they are read.
    """
    points = tasks.points.points
    dearer = {n: own + DEARER.get(points[n].op, 0.0) for n, own in tasks.weight.items()}
    stitcher = Stitcher(replace(tasks, weight=dearer), host)
    in_place = _parts(region.program) & made_beside
    groups = _Grouping(tasks, host, _stored_in_place(region, tasks.points, in_place)).run()
    buffers = tasks.points.buffers
    there = frozenset(
        b for b, own in enumerate(buffers) if own.name in {f"in{n}" for n in computed_there}
    )
    own = [_kernel(stitcher, group, there) for group in groups]
    return (*_copies(region, footprint(tasks.points), host, in_place), *own)


def _kernel(stitcher: Stitcher, group: _Group, there: frozenset[int]) -> InductorKernel:
    tasks, host, pattern = stitcher.tasks, stitcher.host, group.pattern
    seconds, outer = stitcher.phase(pattern)
    if group.is_in_strips:
        in_cache, beyond = STRIPS
        seconds *= in_cache if footprint(tasks.points) <= NEAR_BYTES else beyond
    vectors_ns = _bool_vectors(tasks, pattern, there) * host.vector_ns
    extra_ns = (vectors_ns + _turned_ns(tasks, pattern)) / host.threads
    return InductorKernel(
        tasks=pattern,
        seconds=seconds + extra_ns * 1e-9,
        num_bytes=phase_bytes(tasks.points, stitcher.nested(pattern, outer)),
    )


def _bool_vectors(tasks: Tasks, pattern: Pattern, there: frozenset[int]) -> float:
    """Vector instructions of a kernel for bools that it reads and writes.

    Args:
        tasks, pattern: what is in the kernel.
        there: buffers that it computes instead of reading them.
    """
    points, own = tasks.points, _of(tasks, pattern)
    widest = max(points.num_elements(sorted(task.space)) for task in own)
    walked = {axis for task in own for axis in task.space}
    fastest = next((axis for axis in reversed(tasks.axis_order) if axis in walked), -1)
    places = {place for task in own for place in task.loads}
    read = sum(
        # What is the same along a row is read once for it.
        widest if address.stride(fastest) else points.num_elements([a for a, _ in address.strides])
        for buffer, address in places
        if points.buffers[buffer].dtype is DType.BOOL and buffer not in there
    )
    stores = [store for task in own for store in task.stores]
    written = sum(
        points.num_elements([axis for axis, _ in store.address.strides])
        for store in stores
        if points.buffers[store.buffer].dtype is DType.BOOL
    )
    return (MASK_READ * read + MASK_WRITTEN * written) / LANES


def is_between(buffer: Buffer) -> bool:
    """Whether only weft writes a tensor, which is read in another way than it is made."""
    return buffer.name.startswith("mid")


def _turned_ns(tasks: Tasks, pattern: Pattern) -> float:
    """What a kernel takes beyond weft's for views that do not fit what is in memory [ns]."""
    points = tasks.points
    written = {s.buffer: _strides(s.address) for t in tasks.tasks for s in t.stores}
    found = 0
    for task in _of(tasks, pattern):
        loads = [points.points[number] for number in _read(points, task)]
        if any(
            load.kind is Kind.LOAD
            and is_between(points.buffers[load.buffer])
            and not _strides(load.address) <= written[load.buffer]
            for load in loads
        ):
            found += points.num_elements(sorted(task.space))
    return TURNED_NS * found


def _strides(address: Address) -> frozenset[int]:
    return frozenset(stride for _, stride in address.strides)


def _read(points: Points, task: Task) -> list[int]:
    """Points that a task's own points read, and what it stores."""
    roots = [points.points[task.reduce].reads[0]] if task.reduce >= 0 else [task.stored]
    return [*roots, *(read for number in task.cone for read in points.points[number].reads)]


def _of(tasks: Tasks, pattern: Pattern) -> list[Task]:
    return [tasks.tasks[number] for number in sorted(pattern)]


def _parts(program: Program) -> frozenset[int]:
    """Numbers of inputs that are parts of concatenations as they are."""
    cats = [at for at, node in enumerate(program.nodes) if node.op == "cat"]
    nodes = {part.node for at in cats for part in program.operands(at)}
    return frozenset(n for n, given in enumerate(program.inputs) if given.node in nodes)


def _stored_in_place(
    region: Region, points: Points, in_place: frozenset[int]
) -> frozenset[tuple[int, int]]:
    """Parts that are stored in a concatenation where they are already: point and buffer."""
    cats = {
        f"out{number}"
        for number, value in enumerate(region.outputs)
        if region.program.nodes[value.node].op == "cat"
    }
    given = {f"in{number}" for number in in_place}
    return frozenset(
        (store.point, store.buffer)
        for store in points.stores
        if points.buffers[store.buffer].name in cats
        and points.points[store.point].kind is Kind.LOAD
        and points.buffers[points.points[store.point].buffer].name in given
    )


def _copies(
    region: Region, around: float, host: Host, in_place: frozenset[int]
) -> list[InductorKernel]:
    """A kernel for each part of a concatenation that is not written where it belongs anyway.

    What the region stores of it is known to its tasks; what it only reads is written for that.
    """
    program, found = region.program, list[InductorKernel]()
    free = {program.inputs[number].node for number in in_place}
    for at, node in enumerate(program.nodes):
        if node.op != "cat" or Value(at) in region.outputs:
            continue
        for part in program.operands(at):
            if part.node in free:
                continue
            moved = (1.0 + STORED) * program.type_of(part).num_bytes
            nanoseconds = moved / host.bytes_per_ns(around) + host.barrier_ns
            found.append(
                InductorKernel(tasks=frozenset(), seconds=nanoseconds * 1e-9, num_bytes=moved)
            )
    return found


@dataclass
class _Group:
    """Tasks of one kernel.

    Attributes:
        pattern: their numbers.
        elements: that its loops walk.
        rows: of these, how many the outer loops walk; 0 as long as nothing says so.
        columns: that it sums up one by one; empty if it sums rows or nothing.
    """

    pattern: Pattern
    elements: int
    rows: int
    columns: tuple[int, ...] = ()

    @property
    def is_in_strips(self) -> bool:
        """Whether it reads columns."""
        return bool(self.columns)


class _Grouping:
    def __init__(self, tasks: Tasks, host: Host, in_place: frozenset[tuple[int, int]]) -> None:
        self._tasks = tasks
        self._in_place = in_place
        self._scores = Scores(tasks, host)
        self._rank = {axis: at for at, axis in enumerate(tasks.axis_order)}

    def run(self) -> list[_Group]:
        groups: list[_Group] = []
        for number, task in enumerate(self._tasks.tasks):
            if self._is_in_between(task) or self._is_there_already(task):
                continue
            own = _Group(
                pattern=frozenset({number}),
                elements=self._size(task.space),
                rows=self._size(task.space - task.over) if task.over else 0,
                columns=self._columns(task),
            )
            joined = next((g for g in reversed(groups) if self._fuses(g, own, task)), None)
            if joined is None:
                groups.append(own)
            else:
                joined.pattern |= own.pattern
                joined.elements = max(joined.elements, own.elements)
                joined.rows = joined.rows or own.rows
        return groups

    def _is_in_between(self, task: Task) -> bool:
        """Whether it writes what only weft has to write before it is read in another way."""
        return any(is_between(self._tasks.points.buffers[s.buffer]) for s in task.stores)

    def _is_there_already(self, task: Task) -> bool:
        """Whether all that it stores are parts that are written where they belong."""
        stored = {(store.point, store.buffer) for store in task.stores}
        return bool(stored) and stored <= self._in_place

    def _size(self, axes: frozenset[int]) -> int:
        return prod(self._tasks.points.sizes[axis] for axis in axes)

    def _columns(self, task: Task) -> tuple[int, ...]:
        """Axes of a sum of columns that it keeps; none of rows and of what is no sum."""
        sizes = self._tasks.points.sizes
        kept = [a for a in self._tasks.axis_order if a in task.space - task.over and sizes[a] > 1]
        over = [axis for axis in task.over if sizes[axis] > 1]
        if not kept or not over or max(map(self._place, kept)) < max(map(self._place, over)):
            return ()
        return tuple(kept)

    def _place(self, axis: int) -> int:
        return self._rank[axis]

    def _fuses(self, group: _Group, own: _Group, task: Task) -> bool:
        """Whether a task joins a kernel."""
        if any(
            self._tasks.tasks[read].reduce == task.stored for read in task.reads & group.pattern
        ):
            return True  # what a sum writes
        pattern = group.pattern | own.pattern
        if not self._meets(group, task) or self._scores.nanoseconds(pattern) is None:
            return False
        needs = bool(task.reads & group.pattern)
        if group.columns or own.columns:
            return group.columns == own.columns and group.elements == own.elements and not needs
        if needs and group.rows == 1:
            return False  # nothing is left to be walked outside
        if own.elements == group.elements:
            return 0 in (group.rows, own.rows) or group.rows == own.rows
        return needs and own.elements == group.rows

    def _meets(self, group: _Group, task: Task) -> bool:
        """Whether a task has a result or an input in common with a kernel."""
        others = _of(self._tasks, group.pattern)
        needed = (task.reads | task.after) & group.pattern
        return bool(needed) or any(task.loads & other.loads for other in others)
