"""How a phase becomes programs of a GPU: what each of them holds at once, and in how many threads.

A program computes a *tile*: a box of values of the phase's axes, in registers. Along an axis that
programs share out it is a block; along another one it is the whole axis, or a chunk of it in a loop
where that would be too much for registers. Sizes are powers of two, as Triton wants them; what is
beyond an axis is masked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, prod

from weft.core.errors import VerifyError
from weft.fusion.device import Device, Usage, blocks_per_processor
from weft.fusion.points import Address, Kind, Points, Store
from weft.fusion.schedule import Outer, Phase, computed, places
from weft.program.types import DType

__all__ = ["TILINGS", "Tiles", "Tiling", "tiles_of"]

WANTED = 2048
"""Elements of a tile that are aimed at. Derived: four warps with four vectors of 16 bytes each, of
float32, have enough loads under way to fill memory."""
MOST_WORDS = 32_768
"""Registers for values of one program. Derived: half of a processor's, so that two are there."""
LIMIT_WORDS = 53_248
"""The same where nothing can be made smaller. Derived: 104 for each of 512 threads, which can have
128 if they are alone on a processor."""
CHUNK_WORDS = 16_384
"""The same where an axis is walked in chunks anyway: smaller chunks cost little."""
THREAD_WORDS = 48
"""Registers for values of one thread that are aimed at. Derived: with as many for addresses and
what is being computed, half of a processor's warps fit."""
LEAST_RUN_BYTES = 128
"""What programs read together along the axis that is fastest in memory: a line."""
SECTOR_BYTES = 32
"""Of a line, that memory delivers on their own. Source: CUDA C++ Best Practices Guide, "Coalesced
Access to Global Memory"."""
BASE_REGISTERS = 8
"""Registers of a thread beside its values: addresses, masks, loops."""
LEAST_LOOP = 64
"""Elements of the smallest chunk along the fastest axis."""
MOST_WARPS = 16
AT_ONCE = 8
"""Parts of a sum on a processor up to which no more are made than it works on at once. Chosen: more
are wanted only where each is to be short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """What is aimed at, where kernels can do the same in more than one way.

    Attributes:
        wanted: elements of a tile.
        parts: programs on a processor, at most, that each write their own sums.
        warps: of a program, times what its tile needs.
        stages: blocks or chunks whose loads are under way at once; what is loaded waits in shared
            memory. From two on, what is read outside of loops is read before anything is computed.
    """

    wanted: int = WANTED
    parts: int = 4
    warps: float = 1
    stages: int = 1


TILINGS = (
    Tiling(),
    Tiling(wanted=2 * WANTED),
    Tiling(wanted=WANTED // 2),
    Tiling(stages=2),
    Tiling(stages=3),
    Tiling(stages=3, wanted=2 * WANTED),
    Tiling(stages=3, wanted=WANTED // 2, parts=8),
    Tiling(stages=4, wanted=2 * WANTED, parts=2),
    Tiling(wanted=2 * WANTED, parts=8, warps=2),
    Tiling(parts=64),
    Tiling(wanted=2 * WANTED, parts=64),
    Tiling(warps=0.5),
    Tiling(stages=2, warps=0.5),
    Tiling(stages=2, warps=0.25),
    Tiling(stages=2, wanted=WANTED // 2),
)
"""Those that are worth a trial on a GPU: of eighteen, timed on an H200 with ten graphs, those that
were the fastest somewhere, and others like them. The first is right where nothing can be tried:
more parts write more than they save, if what they sum is short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """What programs of a phase do.

    Attributes:
        grid: axes that programs share out, with their blocks, the slowest first.
        fixed: those of them along which a program has one block only.
        spans: elements of the tile along each axis that has a dim of it.
        looped: axes that are walked in chunks of their span.
        dims: axes with a dim of the tile, the slowest first.
        parts: programs that share out the grid axes that all sums over it sum over; 1 without.
        steps: blocks of these axes that a program does one after the other.
        warps: of a program.
        stages: blocks or chunks that are loaded ahead, and the one at hand.
        registers, shared_bytes: of a thread and of a program, as predicted.
    """

    grid: tuple[Outer, ...]
    spans: Mapping[int, int]
    looped: frozenset[int]
    dims: tuple[int, ...]
    fixed: tuple[int, ...]
    parts: int
    steps: int
    warps: int
    stages: int
    registers: int
    shared_bytes: int

    @property
    def usage(self) -> Usage:
        """What a program takes, as predicted."""
        return Usage(registers=self.registers, shared_bytes=self.shared_bytes, warps=self.warps)

    def blocks(self, axes: Collection[int], sizes: Mapping[int, int]) -> int:
        """Blocks of the grid along some of its axes."""
        return prod(ceil(sizes[o.axis] / o.block) for o in self.grid if o.axis in axes)

    def parts_of(self, axes: Collection[int], sizes: Mapping[int, int]) -> int:
        """In how many parts programs make a sum whose result has these axes."""
        return self.parts * self.blocks(set(self.fixed) - set(axes), sizes)

    def programs(self, sizes: Mapping[int, int]) -> int:
        """Programs of the phase."""
        return self.parts * self.blocks(self.fixed, sizes)

    def elements(self, axes: Sequence[int]) -> int:
        """Elements of a value with these axes."""
        return prod(self.spans.get(axis, 1) for axis in axes)


def tiles_of(
    points: Points,
    phase: Phase,
    memory: Mapping[int, Store],
    axis_order: Sequence[int],
    device: Device,
    tiling: Tiling = TILINGS[0],
) -> Tiles:
    """Decide what programs of a phase do.

    Args:
        points: of the region.
        phase: with what its threads share out.
        memory: where points of earlier phases are.
        axis_order: all axes, the fastest in memory last.
        device: what it runs on.
        tiling: what to aim at.

    Raises:
        VerifyError: it does not fit into registers.
    """
    return _Tiler(points, phase, memory, axis_order, device, tiling).run()


class _Tiler:
    def __init__(
        self,
        points: Points,
        phase: Phase,
        memory: Mapping[int, Store],
        axis_order: Sequence[int],
        device: Device,
        tiling: Tiling,
    ) -> None:
        self._tiling = tiling
        self._points = points
        self._sizes = points.sizes
        self._phase = phase
        self._memory = memory
        self._device = device
        self._grid = {own.axis: 1 for own in phase.outer}
        walked = {axis for nest in phase.nests for axis in nest.axes}
        self._inner = [a for a in axis_order if a in walked and a not in self._grid]
        self._shared = [a for a in axis_order if a in self._grid]
        self._spans = {axis: _power_of_two(self._sizes[axis]) for axis in self._inner}
        made = [n for nest in phase.nests for n in nest.points]
        reduces = [n for n in made if points.points[n].kind is Kind.REDUCE]
        self._made = reduces
        self._carried = {axis for n in reduces for axis in points.points[n].axes}
        self._looped: set[int] = set()
        self._sole: dict[int, bool] = {}
        for number in made:
            for read in points.points[number].reads:
                self._sole[read] = read not in self._sole
        self._sole |= {store.point: False for nest in phase.nests for store in nest.stores}
        self._sole |= {r: False for n in _maps(points, phase) for r in points.points[n].reads}

    def run(self) -> Tiles:
        self._widen_to_lines()
        self._fit()
        self._widen_to_wanted()
        words, elements = self._words(), prod(self._spans.values())
        warps = 1
        while warps < MOST_WARPS and (
            elements > warps * 32 * 16 or words > warps * 32 * THREAD_WORDS
        ):
            warps *= 2
        if elements >= self._tiling.wanted // 4:
            warps = max(warps, 4)
        warps = max(min(int(warps * self._tiling.warps), MOST_WARPS), 1)
        tiles = Tiles(
            grid=tuple(Outer(own.axis, self._grid[own.axis]) for own in self._phase.outer),
            spans=dict(self._spans),
            looped=frozenset(self._looped),
            dims=tuple(a for a in (*self._shared, *self._inner) if a in self._spans),
            fixed=tuple(own.axis for own in self._phase.outer),
            parts=1,
            steps=1,
            warps=warps,
            stages=self._tiling.stages,
            registers=_registers(words, warps),
            shared_bytes=self._shared_bytes(warps),
        )
        return self._with_steps(tiles)

    def _with_steps(self, tiles: Tiles) -> Tiles:
        """Programs that add up over the grid do several blocks each."""
        results = [self._points.points[n].axes for n in self._phase.across]
        kept = {axis for axes in results for axis in axes}
        fixed = tuple(own.axis for own in tiles.grid if not results or own.axis in kept)
        summed = tiles.blocks({own.axis for own in tiles.grid} - set(fixed), self._sizes)
        at_once = max(blocks_per_processor(tiles.usage, self._device), 1)
        wanted = self._tiling.parts
        most = self._device.processors * (wanted if wanted > AT_ONCE else min(at_once, wanted))
        parts = max(min(most // tiles.blocks(fixed, self._sizes), summed), 1)
        steps = ceil(summed / parts)
        registers = _registers(self._words(across=steps > 1), tiles.warps)
        parts = ceil(summed / steps)
        return replace(tiles, fixed=fixed, parts=parts, steps=steps, registers=registers)

    # --- sizes -----------------------------------------------------------------------------

    def _blocks(self) -> int:
        return prod(ceil(self._sizes[axis] / block) for axis, block in self._grid.items())

    def _set_block(self, axis: int, block: int) -> None:
        self._grid[axis] = block
        self._spans.pop(axis, None)
        if block > 1:
            self._spans[axis] = block

    def _widen_to_lines(self) -> None:
        """Blocks along which large tensors are read and written in whole lines.

        Where that would leave processors without a program, in the parts of lines that memory
        delivers.
        """
        own = [*_places(self._points, self._phase), *self._handed_over()]
        largest = max((self._count(address) for _, address in own), default=0)
        for buffer, address in own:
            if self._count(address) * 8 < largest:
                continue
            size = self._element_bytes(buffer)
            for axis, stride in address.strides:
                if stride == 1 and axis in self._grid:
                    before = self._grid[axis]
                    run = min(LEAST_RUN_BYTES // size, _power_of_two(self._sizes[axis]))
                    self._set_block(axis, max(run, before))
                    while run * size > SECTOR_BYTES and self._blocks() < self._device.processors:
                        run //= 2
                        self._set_block(axis, max(run, before))

    def _handed_over(self) -> list[tuple[int, Address]]:
        """Where the phase reads what earlier ones have summed up."""
        read = computed(self._points, self._phase)
        stores = [self._memory[number] for number in read if number in self._memory]
        return [(store.buffer, store.address) for store in stores]

    def _count(self, address: Address) -> int:
        return self._points.num_elements([axis for axis, _ in address.strides])

    def _element_bytes(self, buffer: int) -> int:
        buffers = self._points.buffers
        return buffers[buffer].dtype.num_bytes if buffer < len(buffers) else 4

    def _fit(self) -> None:
        """Chunks, and smaller blocks, until values fit into registers."""
        while self._words() > (CHUNK_WORDS if self._looped else MOST_WORDS):
            loopable = [
                axis
                for axis in self._inner
                if axis not in self._carried
                and self._spans[axis] > (LEAST_LOOP if axis == self._inner[-1] else 1)
            ]
            if loopable:
                # The slowest first: what is read at once stays together.
                axis = loopable[0]
                self._spans[axis] //= 2
                self._looped.add(axis)
                continue
            blocked = [axis for axis in self._shared if self._grid[axis] > 1]
            if not blocked:
                if self._words() <= LIMIT_WORDS:
                    return
                raise VerifyError(
                    need=f"values of a program in {LIMIT_WORDS} registers",
                    got=f"{self._words()}, for axes of {[self._sizes[a] for a in self._inner]}",
                    hint="leave the region to Inductor",
                )
            axis = max(blocked, key=self._grid.__getitem__)
            self._set_block(axis, self._grid[axis] // 2)

    def _widen_to_wanted(self) -> None:
        """Larger blocks where tiles are small and there are many."""
        for axis in reversed(self._shared):
            while (
                self._grid[axis] < self._sizes[axis]
                and prod(self._spans.values()) < self._tiling.wanted
                and self._blocks() >= 4 * self._device.processors
            ):
                before = self._grid[axis]
                self._set_block(axis, 2 * before)
                if self._words() > MOST_WORDS:
                    self._set_block(axis, before)
                    return

    # --- registers -------------------------------------------------------------------------

    def _words(self, *, across: bool = True) -> int:
        """Registers for all values that are there at once, of a program, at most.

        Args:
            across: whether sums over the grid are kept from block to block.
        """
        uses = self._order()
        last = {number: at for at, (_, _, reads) in enumerate(uses) for number in reads}
        sums = [self._sums(nest.points) for nest in self._phase.nests]
        live, most = dict[int, int](), 0
        for at, (nest, number, reads) in enumerate(uses):
            # Element by element a result takes the place of an operand that nobody needs any more.
            for read in reads:
                if last[read] <= at:
                    live.pop(read, None)
            more = sums[nest]
            if number >= 0:
                live[number] = self._value_words(number)
                more += live[number] if self._points.points[number].op in LONG else 0
            most = max(most, sum(live.values()) + more)
        kept = sum(self._value_words(number) for number in self._phase.across)
        # A tile that is turned is there twice, and has places of its own for each element.
        turned = 2 * prod(self._spans.values()) if len(self._fastest()) > 1 else 0
        return most + turned + (kept if across else 0)

    def _sums(self, numbers: Sequence[int]) -> int:
        """Of sums that a nest's loops add to."""
        found = 0
        for number in numbers:
            point = self._points.points[number]
            if number not in self._phase.across and self._looped & set(point.over):
                found += self._value_words(point.reads[0])
        return found

    def _value_words(self, number: int) -> int:
        point = self._points.points[number]
        own = prod(self._spans.get(axis, 1) for axis in point.axes)
        if self._is_added_at_once(number):
            own //= 2
        if point.dtype is DType.BOOL:
            # What is computed is a bit of a predicate; what is loaded is there early, in bytes.
            return own // 2 if point.kind is Kind.LOAD else 0
        return own * (2 if point.dtype.num_bytes == 8 else 1)

    def _is_added_at_once(self, number: int) -> bool:
        """Whether a value is read from memory for one sum only, which takes it as it comes."""
        point = self._points.points[number]
        return point.kind is Kind.LOAD and self._sole.get(number, False)

    def _order(self) -> list[tuple[int, int, tuple[int, ...]]]:
        """Points as kernels compute them: nest, number, -1 for stores, and what it reads."""
        points, found = self._points.points, list[tuple[int, int, tuple[int, ...]]]()
        done: set[int] = set()
        at = 0

        def need(number: int) -> None:
            if number in done:
                return
            done.add(number)
            point = points[number]
            reads = () if self._is_given(number) else point.reads
            for read in reads:
                need(read)
            found.append((at, number, reads))

        for at, nest in enumerate(self._phase.nests):
            for number in nest.points:
                need(number)
            for store in nest.stores:
                need(store.point)
                found.append((at, -1, (store.point,)))
            # What walks a loop is computed again in the next one.
            done = {n for n in done if not self._looped & set(points[n].axes)}
        return found

    def _is_given(self, number: int) -> bool:
        is_reduce = self._points.points[number].kind is Kind.REDUCE
        return is_reduce and number not in self._made

    def _shared_bytes(self, warps: int) -> int:
        """For sums over warps, tiles that are turned before they are stored, and what waits."""
        found = self._waiting_bytes()
        for number in self._made:
            point = self._points.points[number]
            rest = prod(self._spans.get(axis, 1) for axis in point.axes)
            if prod(self._spans.get(axis, 1) for axis in point.over) > 1:
                found = max(found, 4 * rest * min(warps, 4))
        fastest = self._fastest()
        if len(fastest) > 1:
            found = max(found, 4 * prod(self._spans.get(axis, 1) for axis in self._spans))
        return found

    def _waiting_bytes(self) -> int:
        """What is loaded for later rounds of loops."""
        found, walked = 0, self._looped | set(self._grid)
        for buffer, address in _places(self._points, self._phase):
            axes = {axis for axis, _ in address.strides}
            if axes & walked:
                own = prod(self._spans.get(axis, 1) for axis in axes)
                found += own * self._element_bytes(buffer)
        return found * (self._tiling.stages - 1)

    def _fastest(self) -> set[int]:
        """Axes of the tile that are fastest in an access of all of it."""
        whole = {axis for axis, span in self._spans.items() if span > 1}
        return {
            axis
            for _, address in _places(self._points, self._phase)
            for axis, stride in address.strides
            if stride == 1 and axis in whole and whole <= {a for a, _ in address.strides}
        }


LONG = frozenset(
    {
        *("erf.default", "gelu.default", "gelu_backward.default", "log1p.default", "sin.default"),
        *("cos.default", "pow.Tensor_Scalar"),
    }
)
"""Functions that hold as much again as their result while they are computed."""


def _registers(words: int, warps: int) -> int:
    """Registers of a thread, as a compiler gives them: in eights, 255 at most."""
    wanted = BASE_REGISTERS + ceil(words / (32 * warps))
    return min(-(-wanted // 8) * 8, 255)


def _maps(points: Points, phase: Phase) -> set[int]:
    """Maps that a phase computes."""
    return {n for n in computed(points, phase) if points.points[n].kind is not Kind.REDUCE}


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _places(points: Points, phase: Phase) -> list[tuple[int, Address]]:
    """Where a phase reads and writes."""
    return list(dict.fromkeys((buffer, address) for buffer, address, _ in places(points, phase)))
