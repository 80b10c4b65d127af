"""Running a record of `weft.capture.deferred` for real, one tensor at a time.

Draws are made in the order in which they were recorded, so each has the numbers that it would
have had. Between two draws, what the first one completes is computed and handed over, and its
memory is freed. A tensor that needs several draws is computed at its last one: the earlier ones
are made again, from states that were kept. A draw that nothing needs advances its generator.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from weft.capture.deferred import Call, Known, Layout, Recorder, Unable, checksum

__all__ = ["evaluate", "replay"]

aten = torch.ops.aten

Visit = Callable[[str, Tensor], None]


def replay(recorder: Recorder, wanted: Mapping[str, Layout], visit: Visit) -> None:
    """Compute recorded tensors and hand each over; it is freed when `visit` returns.

    Args:
        recorder: what was recorded.
        wanted: tensors by name.
        visit: takes a name and the whole tensor. A tensor that is the same value throughout has
            one element that stands for all (its strides are 0).

    Raises:
        Unable: real operators make something else than the recorded ones, or data that the
            record refers to has changed.
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        _Replay(recorder, wanted, visit).run()


def evaluate(recorder: Recorder, layout: Layout) -> Tensor:
    """A tensor as it is at the end of the record so far.

    Raises:
        Unable: random numbers are needed for it.
    """
    calls = _Writers(recorder.calls).closure(layout.storage, len(recorder.calls))
    if any(recorder.calls[number].draw is not None for number in calls):
        raise Unable("the model factory reads random values out of a tensor")
    memory = _Memory(recorder, _Scratch())
    with torch.no_grad():
        for number in sorted(calls):
            memory.call(recorder.calls[number])
        return memory.tensor(layout)


class _Writers:
    """Which calls write a storage."""

    def __init__(self, calls: list[Call]) -> None:
        self._calls = calls
        self.by_storage: dict[int, list[int]] = defaultdict(list)
        for number, call in enumerate(calls):
            for storage in call.writes:
                self.by_storage[storage].append(number)

    def closure(self, storage: int, end: int) -> set[int]:
        """Calls before `end` that the contents of a storage depend on."""
        return self.of_all([(storage, end)])

    def of_all(self, stack: list[tuple[int, int]]) -> set[int]:
        """Calls that contents of storages depend on, each before an end."""
        found: set[int] = set()
        while stack:
            storage, end = stack.pop()
            writers = self.by_storage[storage]
            position = bisect_left(writers, end)
            if position and (number := writers[position - 1]) not in found:
                found.add(number)
                stack += [(read, number) for read in self._calls[number].reads]
        return found


class _Scratch:
    """Storages that are used again, so that parts kept in between do not break up the heap."""

    def __init__(self) -> None:
        self._free: list[torch.UntypedStorage] = []
        self._largest = self._used = 0

    def expect(self, size: int) -> None:
        """Say that a storage of this size will be asked for [bytes]."""
        self._largest = max(self._largest, size)

    def take(self, size: int) -> torch.UntypedStorage:
        """A storage of at least this size [bytes]."""
        self._used += 1
        for position, storage in enumerate(self._free):
            if storage.nbytes() >= size:
                return self._free.pop(position)
        return torch.UntypedStorage(max(size, self._largest) if self._used == 1 else size)

    def give_back(self, storage: torch.UntypedStorage) -> None:
        """Let the next one have a storage."""
        self._used -= 1
        self._free.append(storage)


class _Memory:
    """Storages that are there for real."""

    def __init__(self, recorder: Recorder, scratch: _Scratch) -> None:
        self._sizes = recorder.sizes
        self._scratch = scratch
        self._storages: dict[int, torch.UntypedStorage] = {}
        self._taken: set[int] = set()

    def tensor(self, layout: Layout) -> Tensor:
        """A tensor in its storage, which is allocated if it is not there yet."""
        if layout.storage not in self._storages:
            self._storages[layout.storage] = self._scratch.take(self._sizes[layout.storage])
            self._taken.add(layout.storage)
        storage = self._storages[layout.storage]
        empty = torch.empty(0, dtype=layout.dtype)
        return empty.set_(storage, layout.offset, layout.size, layout.stride)

    def free(self, storage: int) -> None:
        """Forget a storage."""
        found = self._storages.pop(storage, None)
        if found is not None and storage in self._taken:
            self._scratch.give_back(found)

    def call(self, call: Call) -> None:
        """Run an operator."""
        args, kwargs = tree_map(self._operand, (call.args, dict(call.kwargs)))
        try:
            with _default_dtype(call.default_dtype):
                made = call.func(*args, **kwargs)
        except (RuntimeError, NotImplementedError) as error:
            raise Unable(f"{call.func} runs without values only: {error}") from error
        tensors = [x for x in tree_flatten(made)[0] if isinstance(x, Tensor)]
        for tensor, layout in zip(tensors, call.outputs, strict=True):
            found = (tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.storage_offset())
            if found != (layout.dtype, layout.size, layout.stride, layout.offset):
                raise Unable(f"{call.func} makes another shape or type with values than without")
            if layout.storage not in self._storages:
                self._storages[layout.storage] = tensor.untyped_storage()

    def _operand(self, value: Any) -> Any:
        if isinstance(value, Layout):
            return self.tensor(value)
        if isinstance(value, Known):
            if checksum(value.tensor) != value.checksum:
                raise Unable("the model factory changes data after it was copied from")
            return value.tensor
        return value


class _Replay:
    """One pass over the draws of a record; lives only in `replay`."""

    def __init__(self, recorder: Recorder, wanted: Mapping[str, Layout], visit: Visit) -> None:
        self._recorder = recorder
        self._calls = recorder.calls
        self._wanted = wanted
        self._visit = visit
        self._writers = _Writers(recorder.calls)
        self._scratch = _Scratch()
        for layout in wanted.values():
            if self._constant(layout) is None:
                self._scratch.expect(recorder.sizes[layout.storage])
        self._states: dict[int, Tensor] = {}
        """Of draws that are made again, the state before."""
        self._ends: dict[int, Tensor] = {}
        """Of draws that others than the next one go on from, the state after."""
        self._last: dict[int, int] = {}
        """The last draw from each generator."""

    def run(self) -> None:
        """Hand over all that is wanted."""
        single, groups = self._groups()
        for names in single:
            self._compute(names, set())
        draws = [number for number, call in enumerate(self._calls) if call.draw is not None]
        again = self._drawn_again(groups, draws)
        ends = self._branches(draws)
        for number in draws:
            self._rewind(number)
            if number in again:
                self._states[number] = self._generator(number).get_state()
            self._advance(number, groups.get(number, []))
            if number in ends:
                self._ends[number] = self._generator(number).get_state()
            self._last[id(self._generator(number))] = number

    # --- what is computed when ------------------------------------------------------------

    def _groups(self) -> tuple[list[list[str]], dict[int, list[str]]]:
        """Names to compute together: without draws, and by the draw that completes them."""
        by_draw: dict[int, list[str]] = defaultdict(list)
        parents: dict[str, str] = {}
        owner: dict[int, str] = {}
        for name, layout in self._wanted.items():
            value = self._constant(layout)
            if value is not None:
                self._visit(name, value)
                continue
            calls = self._closure([name])
            draws = [number for number in calls if self._calls[number].draw is not None]
            if draws:
                by_draw[max(draws)].append(name)
                continue
            # What shares a call with others is computed together with them.
            parents[name] = name
            for number in calls:
                parents[_root(parents, owner.setdefault(number, name))] = name
        sets: dict[str, list[str]] = defaultdict(list)
        for name in parents:
            sets[_root(parents, name)].append(name)
        return list(sets.values()), by_draw

    def _constant(self, layout: Layout) -> Tensor | None:
        """A tensor that is one value throughout, as one element; None for others."""
        writers = self._writers.by_storage[layout.storage]
        call = self._calls[writers[-1]] if writers else None
        if call is None or call.reads or call.func not in _CONSTANTS:
            return None
        if layout.dtype is not call.outputs[0].dtype:
            return None
        position, value = _CONSTANTS[call.func]
        value = call.args[position] if position >= 0 else value
        return torch.empty((), dtype=layout.dtype).fill_(value).expand(layout.size)

    def _closure(self, names: Iterable[str]) -> set[int]:
        end = len(self._calls)
        return self._writers.of_all([(self._wanted[name].storage, end) for name in names])

    def _drawn_again(self, groups: Mapping[int, list[str]], draws: list[int]) -> set[int]:
        """Draws that something needs which is not complete with them."""
        found: set[int] = set()
        for number in draws:
            calls = self._closure(groups.get(number, [])) | self._before(number)
            found |= {n for n in calls if self._calls[n].draw is not None and n != number}
        return found

    def _before(self, number: int) -> set[int]:
        """A call and those that it depends on."""
        reads = [(storage, number) for storage in self._calls[number].reads]
        return {number} | self._writers.of_all(reads)

    # --- generators -----------------------------------------------------------------------

    def _generator(self, number: int) -> torch.Generator:
        draw = self._calls[number].draw
        assert draw is not None
        return draw.generator

    def _branches(self, draws: list[int]) -> set[int]:
        """Draws from which another one goes on than the next of their generator."""
        last: dict[int, int] = {}
        found: set[int] = set()
        for number in draws:
            draw = self._calls[number].draw
            assert draw is not None
            if draw.state is None and last.get(id(draw.generator)) != draw.after:
                found.add(draw.after)
            last[id(draw.generator)] = number
        return found

    def _rewind(self, number: int) -> None:
        """Put the generator into the state in which a draw found it."""
        draw = self._calls[number].draw
        assert draw is not None
        if draw.state is not None:
            draw.generator.set_state(draw.state)
        elif self._last.get(id(draw.generator)) != draw.after:
            draw.generator.set_state(self._ends[draw.after])

    # --- running --------------------------------------------------------------------------

    def _advance(self, number: int, names: list[str]) -> None:
        """Make a draw, and hand over what it completes."""
        if not names and (filled := _fill(self._calls[number], self._recorder)) is not None:
            _draw_in_slices(self._calls[number], filled)
        else:
            self._compute(names, self._before(number))

    def _compute(self, names: list[str], more: set[int]) -> None:
        calls = sorted(self._closure(names) | more)
        ends, left = self._ends_of(calls, names), set(names)
        memory = _Memory(self._recorder, self._scratch)
        current = max((n for n in calls if self._calls[n].draw is not None), default=-1)
        before = self._generator_states(calls)
        for number in calls:
            call = self._calls[number]
            if call.draw is not None and number != current:
                call.draw.generator.set_state(self._states[number])
            elif call.draw is not None:
                call.draw.generator.set_state(before.pop(id(call.draw.generator))[1])
            memory.call(call)
            for storage in ends.get(number, ()):
                for name in [n for n in left if self._wanted[n].storage == storage]:
                    self._visit(name, memory.tensor(self._wanted[name]))
                    left.remove(name)
                memory.free(storage)
        for name in left:
            self._visit(name, memory.tensor(self._wanted[name]))
        for generator, state in before.values():
            generator.set_state(state)

    def _generator_states(self, calls: list[int]) -> dict[int, tuple[torch.Generator, Tensor]]:
        """The states of the generators that some calls draw from."""
        draws = [call.draw for number in calls if (call := self._calls[number]).draw is not None]
        found = {id(draw.generator): draw.generator for draw in draws if draw is not None}
        return {key: (generator, generator.get_state()) for key, generator in found.items()}

    def _ends_of(self, calls: list[int], names: list[str]) -> dict[int, list[int]]:
        """For each call, the storages that no later one touches."""
        last: dict[int, int] = {}
        for number in calls:
            call = self._calls[number]
            operands = tree_flatten((call.args, dict(call.kwargs)))[0]
            touched = {x.storage for x in operands if isinstance(x, Layout)}
            last |= dict.fromkeys(touched | call.writes, number)
        found: dict[int, list[int]] = defaultdict(list)
        for storage, number in last.items():
            found[number].append(storage)
        return found


def _root(parents: Mapping[str, str], name: str) -> str:
    """The name that stands for a set of names."""
    while parents[name] != name:
        name = parents[name]
    return name


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    if dtype == before:
        yield
        return
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _fill(call: Call, recorder: Recorder) -> Layout | None:
    """What a draw fills, if it can be made in slices; None if not."""
    if call.func not in _SLICED or call.reads:
        return None
    layout = call.args[0]
    count = recorder.sizes[layout.storage] // layout.dtype.itemsize
    return layout if count > _SLICE and _row_major(layout) else None


def _row_major(layout: Layout) -> bool:
    expected = 1
    for size, stride in zip(reversed(layout.size), reversed(layout.stride), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _draw_in_slices(call: Call, layout: Layout) -> None:
    """Draw as many numbers as a tensor has, in a small one, for the generator's sake."""
    total = 1
    for size in layout.size:
        total *= size
    buffer = torch.empty(2 * _SLICE, dtype=layout.dtype)
    while total:
        count = total if total < 2 * _SLICE else _SLICE
        call.func(buffer[:count], *call.args[1:], **call.kwargs)
        total -= count


_SLICED = frozenset({aten.normal_.default, aten.uniform_.default})
"""Draws that advance the generator as much in slices as at once."""

_SLICE = 1 << 18
"""Elements of a slice. Derived: a power of two of at least 16, since torch draws normal numbers in
blocks of 16 and the last 16 of a tensor once more; and small enough for a processor's cache."""

_CONSTANTS: Mapping[Any, tuple[int, float]] = {
    **dict.fromkeys((aten.zero_.default, aten.zeros.default, aten.zeros_like.default), (-1, 0)),
    **dict.fromkeys((aten.new_zeros.default,), (-1, 0)),
    **dict.fromkeys((aten.ones.default, aten.ones_like.default, aten.new_ones.default), (-1, 1)),
    **dict.fromkeys((aten.fill_.Scalar, aten.full.default, aten.full_like.default), (1, 0)),
    aten.new_full.default: (2, 0),
}
"""What makes or fills a tensor with one value: which argument it is, or else the value."""
