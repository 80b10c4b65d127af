"""Which instructions of a stage make one graph, what it reads and what it hands on.

What repeats is one graph for each part. What runs once is cut where something is sent meanwhile:
what a parcel depends on comes before it, the rest of the part after all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from weft.parallel.pipeline.segments import Part, Segments
from weft.parallel.pipeline.stages import Parcel
from weft.parallel.prefetch import is_view, slots_read, slots_written
from weft.program.graph import Phase

__all__ = ["Key", "Piece", "cut_in_pieces"]

Key: TypeAlias = tuple[Part, str]
"""A part and the parcel that is sent after it; "" for what is left of the part, or all of it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Instructions that run together.

    Attributes:
        numbers: positions in `local.instructions`, in order.
        reads: slots that they read and do not write.
        writes: slots that others read and that it returns.
        replaces: a slot that it reads and a slot whose value it writes over that one's.
    """

    numbers: tuple[int, ...]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    replaces: tuple[tuple[int, int], ...] = ()


def cut_in_pieces(
    segments: Segments,
    sends: Sequence[Parcel],
    *,
    compiled: bool,
    shared: Collection[str] = (),
) -> dict[Key, Piece]:
    """A stage's instructions in pieces.

    A compiled piece returns what it returns in row-major order, where a view would become a
    copy: so views of what is handed on are made again where they are read, and only tensors of
    their own go from piece to piece. A compiler joins updates of several tensors in one kernel,
    before which none of the old ones could be freed: so the next state is written over the old.

    Args:
        segments: the stage's instructions by part.
        sends: what the stage sends.
        compiled: whether the pieces are for a compiler.
        shared: names of inputs that other stages of this rank read and replace too, such as the
            optimizer's step counter; nobody writes over those.
    """
    return _Cutting(segments, sends, compiled=compiled, shared=shared).run()


class _Cutting:
    """Cuts one stage; lives only inside `cut_in_pieces`."""

    def __init__(
        self,
        segments: Segments,
        sends: Sequence[Parcel],
        *,
        compiled: bool,
        shared: Collection[str],
    ) -> None:
        self._segments = segments
        self._instructions = segments.local.instructions
        self._last_use = segments.local.last_use
        self._sends = sorted((p for p in sends if p.once), key=lambda parcel: parcel.number)
        self._compiled = compiled
        self._shared = shared
        self._maker = {
            slot: number
            for number, instruction in enumerate(self._instructions)
            for slot in slots_written(instruction)
        }

    def run(self) -> dict[Key, Piece]:
        own = self._repeated() | self._once()
        numbers = {key: self._with_views(found) for key, found in own.items()}
        reads = {key: self._reads(found) for key, found in numbers.items()}
        pieces = {
            key: Piece(numbers[key], reads[key], self._writes(key, found, reads))
            for key, found in own.items()
        }
        if self._compiled:
            last = (Part.FINISH, "")
            pieces[last] = self._in_place(pieces[last])
        return pieces

    def _in_place(self, piece: Piece) -> Piece:
        """The last piece, which writes the next state over the one that it reads."""
        local = self._segments.local
        own = {source.name: source.slot for source in local.inputs}
        replaces = tuple(
            (own[name], slot)
            for name, slot in local.updates
            if slot in piece.writes and own[name] in piece.reads and name not in self._shared
        )
        elsewhere = {slot for name, slot in local.updates if (own[name], slot) not in replaces}
        gone = {slot for _, slot in replaces} - elsewhere - {local.loss}
        return replace(
            piece,
            writes=tuple(slot for slot in piece.writes if slot not in gone),
            replaces=replaces,
        )

    def _repeated(self) -> dict[Key, tuple[int, ...]]:
        return {(part, ""): self._segments.parts[part] for part in Part if part.repeats}

    def _once(self) -> dict[Key, tuple[int, ...]]:
        found: dict[Key, tuple[int, ...]] = {}
        taken: set[int] = set()
        for parcel in self._sends:
            part = Part.FINISH if parcel.phase is Phase.UPDATE else Part.SETUP
            own = self._ancestors(part, self._segments.sends[parcel.name], taken)
            taken.update(own)
            found[part, parcel.name] = own
        for part in Part:
            if not part.repeats:
                found[part, ""] = tuple(n for n in self._segments.parts[part] if n not in taken)
        return found

    def _ancestors(self, part: Part, slot: int, taken: set[int]) -> tuple[int, ...]:
        """Instructions of a part that are not taken yet and that a slot depends on."""
        own = set(self._segments.parts[part]) - taken
        found: set[int] = set()
        stack = [slot]
        while stack:
            number = self._maker.get(stack.pop(), -1)
            if number in own and number not in found:
                found.add(number)
                stack.extend(slots_read(self._instructions[number]))
        return tuple(sorted(found))

    def _with_views(self, numbers: tuple[int, ...]) -> tuple[int, ...]:
        """The instructions, and those that make the views among what they read."""
        found = set(numbers)
        stack = list(numbers) if self._compiled else []
        while stack:
            for slot in slots_read(self._instructions[stack.pop()]):
                maker = self._maker.get(slot, -1)
                if maker >= 0 and maker not in found and is_view(self._instructions[maker]):
                    found.add(maker)
                    stack.append(maker)
        return tuple(sorted(found))

    def _reads(self, numbers: tuple[int, ...]) -> tuple[int, ...]:
        written = set(self._written(numbers))
        return tuple(
            dict.fromkeys(
                slot
                for number in numbers
                for slot in slots_read(self._instructions[number])
                if slot not in written
            )
        )

    def _writes(
        self, key: Key, own: tuple[int, ...], reads: dict[Key, tuple[int, ...]]
    ) -> tuple[int, ...]:
        """Slots that instructions write and that others read, or that the step returns."""
        local, segments = self._segments.local, self._segments
        written = self._written(own)
        if key[0] is Part.SURVEY:
            totals = {made for made, _ in segments.sums[Part.SURVEY]}
            return tuple(slot for slot in written if slot in totals)
        wanted = {local.loss, *(slot for _, slot in local.updates), *segments.sends.values()}
        wanted.update(made for sums in segments.sums.values() for made, _ in sums)
        for other, slots in reads.items():
            if other != key:
                wanted.update(slots)
        return tuple(slot for slot in written if slot in wanted)

    def _written(self, numbers: Sequence[int]) -> list[int]:
        return [
            slot
            for number in numbers
            for slot in slots_written(self._instructions[number])
            if self._last_use[slot] >= 0
        ]
