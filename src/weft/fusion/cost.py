"""What a phase takes, in seconds: the latency-evaluator.

A phase reads and writes memory and computes in vectors; threads do both at once, so it takes the
longer of the two. What is read twice in a tile comes from the caches the second time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, log, prod, sqrt

from weft.fusion.device import Device
from weft.fusion.emit.expressions import expression, power
from weft.fusion.points import Address, Const, Kind, Point, Points
from weft.fusion.schedule import LANES, Nest, Phase, crossing_accesses, places

__all__ = ["Host", "host_like", "phase_seconds", "weights"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What kernels run on.

    Attributes:
        threads: that share out the work.
        vector_ns: of a vector instruction on one thread [ns].
        barrier_ns: of a barrier [ns].
        fork_ns: to have threads begin and end [ns].
        call_ns, tensor_ns: to call a kernel from Inductor's code, over one of Inductor's own, and
            for each tensor that it takes or makes [ns]. Measured: in an inference of a DIEN, which
            comes back to the same code after two milliseconds, four kernels with 3, 6, 12 and 20
            tensors take 28, 30, 27 and 74 us more than alone (AMD EPYC, two threads, torch
            2.13), of which these are the least squares.
        hot_share: of that where the code is in the caches from the last time. Measured: twenty
            kernels with three tensors between small matrix products take 9.5 us more each.
        single_share: what one thread alone gets of what memory delivers to all.
        levels: of memory, all threads together: bytes of tensors that are used over and over, and
            bytes that are then delivered in a nanosecond.
        tile_bytes: what one thread's tiles may fill before they leave its own cache: half of one
            of the second level [bytes].
        alone_bytes: of all tensors up to which one thread might do as well as all [bytes].
            Derived: it takes a hundred times as long to read them as to have threads begin.
        far_jump_bytes: what a jump to another page of memory costs, in bytes of a run. Measured: a
            masked softmax that reads and writes rows of 2,048 bytes, 1 MiB apart, takes 2.8 ms
            where they take 1.9 one behind the other (AMD EPYC, two threads).
        across_ns: of adding up what threads have summed, where that takes a step of its own [ns].
    """

    threads: int
    vector_ns: float = 0.25
    barrier_ns: float = 1000.0
    fork_ns: float = 3000.0
    call_ns: float = 13_000.0
    tensor_ns: float = 2600.0
    hot_share: float = 0.46
    single_share: float = 0.6
    levels: tuple[tuple[float, float], ...] = (
        *((1e6, 150.0), (4e6, 60.0)),
        *((24e6, 60.0), (100e6, 20.0)),
    )
    tile_bytes: float = 512e3
    alone_bytes: float = 4e6
    far_jump_bytes: float = 1024.0
    across_ns: float = 0.0

    def calling_ns(self, num_tensors: int, *, is_hot: bool = False) -> float:
        """To call a kernel with so many tensors from Inductor's code, in the caches or not [ns]."""
        share = self.hot_share if is_hot else 1.0
        return share * (self.call_ns + self.tensor_ns * num_tensors)

    @property
    def alone(self) -> Host:
        """One thread, which waits for nobody."""
        levels = tuple((limit, rate * self.single_share) for limit, rate in self.levels)
        return replace(self, threads=1, barrier_ns=0.0, fork_ns=0.0, levels=levels)

    @property
    def streamed_bytes(self) -> float:
        """Bytes of tensors from which on they are not found in a cache again."""
        return sqrt(self.levels[-2][0] * self.levels[-1][0])

    def bytes_per_ns(self, footprint: float) -> float:
        """What memory delivers where tensors of so many bytes are used over and over.

        Between two sizes that were measured, a part of the bytes comes from each level.
        """
        if footprint <= self.levels[0][0]:
            return self.levels[0][1]
        for (small, near), (large, far) in pairwise(self.levels):
            if footprint <= large:
                share = log(footprint / small) / log(large / small)
                return 1.0 / ((1.0 - share) / near + share / far)
        return self.levels[-1][1]


def host_like(device: Device) -> Host:
    """A GPU as the evaluators see it: processors share out work, and a launch is a barrier.

    A vector instruction is one of sixteen lanes. A tile lives in half of a processor's registers.
    Sums over programs are added up by a kernel more.
    """
    return Host(
        threads=device.processors,
        vector_ns=16 / device.lanes / device.clock_ghz,
        barrier_ns=device.launch_ns,
        across_ns=device.launch_ns,
        fork_ns=device.launch_ns,
        levels=(
            (device.cache_bytes, device.cache_bytes_per_ns),
            (2 * device.cache_bytes, device.memory_bytes_per_ns),
        ),
        tile_bytes=device.registers * 4 / 2,
        alone_bytes=0.0,
        far_jump_bytes=float(JUMP_BYTES),
    )


def footprint(points: Points) -> float:
    """Bytes of all tensors that a region reads and writes [bytes]."""
    return float(sum(buffer.num_bytes for buffer in points.buffers))


def weights(points: Points) -> dict[int, float]:
    """Vector instructions of each map point."""
    found: dict[int, float] = {}
    for number, point in enumerate(points.points):
        if point.kind is Kind.MAP:
            found[number] = _weight(point)
    return found


def _weight(point: Point) -> float:
    if point.op == "cast":
        return 1.0
    if point.op == "pow.Tensor_Scalar":
        exponent = point.args[1]
        assert isinstance(exponent, Const)
        return (power(float(exponent.value)) or ("", 100.0))[1]
    if point.op == "pow.Scalar":
        return 100.0
    return expression(point.op, point.words, len(point.args), point.dtype)[1]


def phase_seconds(points: Points, phase: Phase, host: Host, weight: Mapping[int, float]) -> float:
    """Time of a phase [s]."""
    return _Phase(points, phase, host, weight).run() * 1e-9


def phase_bytes(points: Points, phase: Phase) -> float:
    """Bytes that a phase reads and writes, each place once [bytes]."""
    return sum(
        (STORED if is_store else 1.0) * _touched(points, buffer, address)
        for buffer, address, is_store in places(points, phase)
    )


STORED = 1.5
"""What a store counts beside a load. Derived: a line is read before it is written, but processors
tell lines that are written whole in part."""


def _touched(points: Points, buffer: int, address: Address) -> float:
    count = points.num_elements([axis for axis, _ in address.strides])
    return float(count * _element_bytes(points, buffer))


def _element_bytes(points: Points, buffer: int) -> int:
    # Buffers behind those of the region hold results of reductions.
    return points.buffers[buffer].dtype.num_bytes if buffer < len(points.buffers) else 4


LINE_BYTES = 64
"""A cache line. Derived: of every x86-64 processor."""
JUMP_BYTES = 128
"""Bytes of a run that a jump to the next one costs. Derived: prefetchers fetch lines in pairs."""
PAGE_BYTES = 4096
"""Of memory. Derived: of every x86-64 system unless it is asked for larger ones."""
KNOWN_PAGES_BYTES = 8 * 2**20
"""Bytes of pages that a core knows the places of. Derived: 2,048 entries of the second level of
translation buffers (Intel Golden Cove; 3,072 on AMD Zen 4)."""


def _access(
    lane: int, buffer: int, address: Address, crossing: Collection[tuple[int, Address]]
) -> float:
    """Vector instructions of a load, along the last axis of its nest."""
    if (buffer, address) in crossing:
        return 6.0
    return 0.5 if address.stride(lane) in (0, 1) else 2.0 * LANES


class _Phase:
    def __init__(
        self, points: Points, phase: Phase, host: Host, weight: Mapping[int, float]
    ) -> None:
        self._points = points
        self._phase = phase
        self._host = host
        self._weight = weight
        self._block = {own.axis: own.block for own in phase.outer if own.block > 1}
        self._outer = prod(ceil(points.sizes[own.axis] / own.block) for own in phase.outer)

    def run(self) -> float:
        vectors = sum(map(self._nest_vectors, self._phase.nests))
        busy = ceil(self._outer / self._host.threads)
        compute = busy * (vectors * self._host.vector_ns + 3.0)
        even = self._outer / (busy * self._host.threads)
        rate = self._host.bytes_per_ns(footprint(self._points))
        num_bytes = self._weighted_bytes() + self._spilled_bytes()
        memory = num_bytes / rate / max(even, 1.0 / self._host.threads)
        between = self._host.barrier_ns + (self._host.across_ns if self._phase.across else 0.0)
        return max(compute, memory) + 0.2 * min(compute, memory) + between

    def _extent(self, axis: int) -> int:
        size = self._points.sizes[axis]
        return min(self._block.get(axis, size), size)

    def _nest_vectors(self, nest: Nest) -> float:
        """Vector instructions of a nest for one value of the outer axes."""
        axes, lines = nest.axes, self._lines(nest)
        if not axes:
            return 2.0 * sum(lines.values())
        lane = axes[-1]
        trips = prod(self._extent(axis) for axis in axes[:-1])
        vectors = ceil(self._extent(lane) / LANES)
        inside = sum(cost for number, cost in lines.items() if self._walks(number, lane))
        outside = sum(lines.values()) - inside
        reduces = [n for n in nest.points if self._points.points[n].over]
        finish = 12.0 * len(reduces)
        return trips * (vectors * inside + outside + 4.0) + finish

    def _walks(self, number: int, lane: int) -> bool:
        """Whether a point, or a store, whose number is below zero, walks the lanes."""
        if number < 0:
            return True
        point = self._points.points[number]
        return lane in point.axes or lane in point.over

    def _lines(self, nest: Nest) -> dict[int, float]:
        """Points that a nest computes or reads, with their vector instructions."""
        points, found = self._points.points, dict[int, float]()
        lane = nest.axes[-1] if nest.axes else -1
        crossing = crossing_accesses(self._points, self._phase, nest)

        def need(number: int, is_root: bool) -> None:
            if number in found:
                return
            point = points[number]
            if point.kind is Kind.LOAD:
                found[number] = _access(lane, point.buffer, point.address, crossing)
            elif point.kind is Kind.IOTA:
                found[number] = 1.0
            elif point.kind is Kind.LOOKUP:
                found[number] = 2.0 * LANES
                for read in point.reads:
                    need(read, False)
            elif not is_root and (number in self._phase.kept or point.over):
                found[number] = 0.5
            else:
                # A sum in a buffer is loaded, added to and stored.
                summed = point.over and lane not in point.over
                found[number] = self._weight.get(number, 2.5 if summed else 1.0)
                for read in point.reads:
                    need(read, False)

        for number in nest.points:
            need(number, True)
        for at, store in enumerate(nest.stores):
            need(store.point, False)
            found[-1 - at] = _access(lane, store.buffer, store.address, crossing) * 1.5
        return found

    def _weighted_bytes(self) -> float:
        """Bytes of a phase, more where they come in short runs [bytes]."""
        total = 0.0
        crossed = (crossing_accesses(self._points, self._phase, n) for n in self._phase.nests)
        # Squares that are transposed are fetched before they are needed.
        may_wait = footprint(self._points) > KNOWN_PAGES_BYTES and not any(crossed)
        for buffer, address, is_store in places(self._points, self._phase):
            run, far = self._run_bytes(buffer, address)
            jump = self._host.far_jump_bytes if far >= PAGE_BYTES and may_wait else JUMP_BYTES
            factor = max(1.0 + jump / run, LINE_BYTES / run)
            own = STORED if is_store else 1.0
            total += own * factor * _touched(self._points, buffer, address)
        return total

    def _spilled_bytes(self) -> float:
        """Bytes that later nests have to fetch again, because tiles left a core's own cache."""
        loaded, kept, fetched = dict[tuple[int, Address], float](), dict[int, float](), 0.0
        for nest in self._phase.nests:
            for number in self._lines(nest):
                point = self._points.points[number] if number >= 0 else None
                if point is None:
                    continue
                if point.kind is Kind.LOAD:
                    own = _touched(self._points, point.buffer, point.address)
                    loaded[point.buffer, point.address] = own
                    fetched += own
                elif number in self._phase.kept:
                    own = self._points.num_elements(point.axes) * point.dtype.num_bytes
                    kept[number] = float(own)
                    fetched += own
        once = sum(loaded.values())
        if (once + sum(kept.values())) / self._outer <= self._host.tile_bytes:
            return 0.0
        return fetched - once

    def _run_bytes(self, buffer: int, address: Address) -> tuple[float, float]:
        """How far a phase walks through a tensor without jumping, and how far it jumps [bytes]."""
        size = _element_bytes(self._points, buffer)
        shared = [own.axis for own in self._phase.outer if own.block == 1]
        among_threads, run = set(shared), float(size)
        by_stride = sorted((abs(stride), axis) for axis, stride in address.strides)
        for at, (stride, axis) in enumerate(by_stride):
            inside = [far for far, other in by_stride[at:] if other not in among_threads]
            # Outer values follow one another where nothing is left to walk inside of one.
            is_next = axis not in among_threads or (not inside and axis == shared[-1])
            if not is_next or stride * size > 2 * run:
                last = abs(address.stride(shared[-1])) if shared else stride
                return run, float((inside[0] if inside else last) * size)
            if axis in among_threads:
                shared.pop()
            run = max(run, float(stride * size * self._walked(axis, is_last=len(inside) == 1)))
        return run, 0.0

    def _walked(self, axis: int, *, is_last: bool) -> int:
        """Values of an axis in a row; blocks of the last outer axis follow one another too.

        Args:
            axis: which.
            is_last: whether nothing slower is walked inside of an outer value.
        """
        follows = is_last and bool(self._phase.outer) and self._phase.outer[-1].axis == axis
        return self._points.sizes[axis] if follows else self._extent(axis)
