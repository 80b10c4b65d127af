"""Small collectives of a local program, joined into messages.

A collective of a few kilobytes costs its latency and little else, and a training step has
hundreds: a reduction for each bias, a gather for each norm. Neighbours of one kind that can
stand side by side become one message. Two moves are legal, and a message uses one of them:

    earlier   all its members go to where the first one stands; what they read is there already
              (weights, which nothing in the step makes)
    later     all go to where the last one stands; nobody reads their results before
              (gradients on their way to the update)

Source: buckets in distributed data parallel (Li et al., arXiv 2006.15704, section 3.2.3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

from weft.parallel.local import Collective, CollectiveKind, Instruction, LocalProgram
from weft.parallel.prefetch import slots_read
from weft.program.graph import Phase
from weft.program.types import DType

__all__ = ["JOINED", "MESSAGE_BYTES", "SMALL_BYTES", "is_small", "with_bundles"]

SMALL_BYTES = 2**20
"""Tensors up to this size travel together. Derived: at 1 MiB latency is a tenth of the time on
the TCP loopback of a host and most of it between nodes; also DDP's first bucket."""

MESSAGE_BYTES = 2**23
"""A message is closed at this size. Derived: beyond 8 MiB a larger one is not faster per byte on
any machine measured, and starts later."""

_Key: TypeAlias = tuple[CollectiveKind, int, int, str, DType, Phase, bool]

JOINED = (CollectiveKind.ALL_REDUCE, CollectiveKind.REDUCE_SCATTER, CollectiveKind.ALL_GATHER)
"""Kinds that travel together."""


def with_bundles(local: LocalProgram) -> LocalProgram:
    """The same program with small collectives side by side and marked as one message.

    What is computed does not change: whoever ignores the marks runs the same program.
    """
    entries = [
        _Entry(instruction, _key(local, instruction), slots_read(instruction))
        for instruction in local.instructions
    ]
    count = 0
    for key, members in Counter(entry.key for entry in entries).items():
        if key is not None and members > 1:
            bundles = [b for b in _grouped(local, entries, key) if len(b.members) > 1]
            entries = _rearranged(entries, bundles, count)
            count += len(bundles)
    return replace(local, instructions=tuple([entry.instruction for entry in entries]))


class _Entry(NamedTuple):
    """An instruction, what it has to share with others of a message, and the slots it reads."""

    instruction: Instruction
    key: _Key | None
    reads: tuple[int, ...]


@dataclass
class _Bundle:
    """Positions of collectives that can become one message."""

    members: list[int]
    num_bytes: int
    earliest_reader: int
    goes_early: bool | None = field(default=None)

    @property
    def anchor(self) -> int:
        """Where all of them go."""
        return self.members[0] if self.goes_early else self.members[-1]


def _key(local: LocalProgram, instruction: Instruction) -> _Key | None:
    """What a collective has to share with others; None if it travels alone."""
    if not isinstance(instruction, Collective) or instruction.kind not in JOINED:
        return None
    mesh, axis, kind = local.mesh_of(instruction.home), instruction.axis, instruction.kind
    alone = len(mesh.members(axis)) == 1
    unlike = not mesh.cuts_evenly(axis) and kind is not CollectiveKind.ALL_REDUCE
    if alone or unlike or not is_small(local, instruction):
        return None
    dtype = local.slots[instruction.source].dtype
    about = (kind, axis, instruction.home, instruction.reduce, dtype, instruction.phase)
    return (*about, instruction.lasts)


def is_small(local: LocalProgram, collective: Collective) -> bool:
    """True if a collective is small enough to travel with others."""
    return _num_bytes(local, collective) <= SMALL_BYTES


def _num_bytes(local: LocalProgram, collective: Collective) -> int:
    sides = (collective.source, collective.target)
    return max(local.slots[slot].num_bytes for slot in sides)


def _grouped(local: LocalProgram, entries: Sequence[_Entry], key: _Key) -> list[_Bundle]:
    made, read = _positions(local, entries)
    bundles: list[_Bundle] = []
    for position, entry in enumerate(entries):
        if entry.key != key or not isinstance(entry.instruction, Collective):
            continue
        source, reader = made[entry.instruction.source], read[entry.instruction.target]
        size = _num_bytes(local, entry.instruction)
        if not (bundles and _joins(bundles[-1], position, source, size)):
            bundles.append(_Bundle([], 0, reader))
        last = bundles[-1]
        last.members.append(position)
        last.num_bytes += size
        last.earliest_reader = min(last.earliest_reader, reader)
    return bundles


def _joins(bundle: _Bundle, position: int, source: int, size: int) -> bool:
    """True if one more collective fits; settles which way the bundle goes."""
    if bundle.num_bytes + size > MESSAGE_BYTES:
        return False
    if bundle.goes_early is not False and source < bundle.members[0]:
        bundle.goes_early = True
        return True
    if not bundle.goes_early and bundle.earliest_reader > position:
        bundle.goes_early = False
        return True
    return False


def _positions(local: LocalProgram, entries: Sequence[_Entry]) -> tuple[list[int], list[int]]:
    """For each slot, who writes it (-1: an input) and who reads it first."""
    made = [-1] * len(local.slots)
    read = [len(entries)] * len(local.slots)
    for position in reversed(range(len(entries))):
        instruction, _, reads = entries[position]
        if isinstance(instruction, Collective):
            made[instruction.target] = position
        else:
            for slot in instruction.outputs:
                made[slot] = position
        for slot in reads:
            read[slot] = position
    return made, read


def _rearranged(entries: Sequence[_Entry], bundles: Sequence[_Bundle], first: int) -> list[_Entry]:
    """Instructions in their new order, members marked with the number of their bundle."""
    moved: dict[int, list[_Entry]] = {}
    gone: set[int] = set()
    for number, bundle in enumerate(bundles, start=first):
        moved[bundle.anchor] = [_marked(entries[position], number) for position in bundle.members]
        gone.update(bundle.members)
    ordered: list[_Entry] = []
    for position, entry in enumerate(entries):
        if position in moved:
            ordered += moved[position]
        elif position not in gone:
            ordered.append(entry)
    return ordered


def _marked(entry: _Entry, number: int) -> _Entry:
    assert isinstance(entry.instruction, Collective)
    return entry._replace(instruction=replace(entry.instruction, bundle=number))
