"""What one rank executes of a program whose ranks have unlike parts.

The instructions are those of all ranks, with this rank's sizes, and without what is at home
elsewhere. Whatever depends on sizes, such as which collectives travel together, has been decided
for all ranks before.
"""

from __future__ import annotations

from dataclasses import replace

from weft.parallel.local import Collective, Instruction, LocalProgram, Run
from weft.parallel.placement import Mesh, local_type
from weft.parallel.prefetch import with_last_use
from weft.parallel.spmd import localized

__all__ = ["partial_meetings", "resized", "specialized", "takes_part"]


def specialized(local: LocalProgram, coordinate: tuple[int, ...]) -> LocalProgram:
    """The local program of the rank at a place; that of an even plan is everybody's.

    Args:
        local: of all ranks.
        coordinate: where the rank stands on each mesh axis.
    """
    if local.is_even:
        return local
    here, present = resized(local, coordinate)
    kept = zip(here.instructions, present, strict=True)
    return with_last_use(replace(here, instructions=tuple(i for i, is_here in kept if is_here)))


def resized(
    local: LocalProgram, coordinate: tuple[int, ...]
) -> tuple[LocalProgram, tuple[bool, ...]]:
    """All instructions in their places with the sizes of one rank, and in which it has a part.

    Args:
        local: of all ranks, of an uneven plan.
        coordinate: where the rank stands on each mesh axis.
    """
    slots = tuple(
        local_type(mesh, lies.sharding, lies.whole, coordinate)
        if (mesh := local.homes[lies.home]).has(coordinate)
        else kept
        for lies, kept in zip(local.lies, local.slots, strict=True)
    )
    here = replace(local, slots=slots)
    present = tuple(
        takes_part(i, local.homes, coordinate) and not _is_idle(i, local)
        for i in local.instructions
    )
    inputs = tuple(i for i in local.inputs if local.homes[i.home].has(coordinate))
    held = {source.name for source in inputs}
    own = replace(
        here,
        inputs=inputs,
        instructions=tuple(
            _with_own_sizes(instruction, here) if is_here else instruction
            for instruction, is_here in zip(local.instructions, present, strict=True)
        ),
        updates=tuple((name, slot) for name, slot in local.updates if name in held),
    )
    return with_last_use(own, present), present


def _is_idle(instruction: Instruction, local: LocalProgram) -> bool:
    """True if no rank reads what a collective makes."""
    return isinstance(instruction, Collective) and local.last_use[instruction.target] < 0


def takes_part(
    instruction: Instruction, homes: tuple[Mesh, ...], coordinate: tuple[int, ...]
) -> bool:
    """True if the rank at a place has something to do in an instruction."""
    if isinstance(instruction, Run):
        return homes[instruction.strategy.home].has(coordinate)
    ends = {instruction.home, instruction.target_home}
    return any(homes[home].has(coordinate) for home in ends)


def partial_meetings(local: LocalProgram) -> frozenset[tuple[int, ...]]:
    """Positions along the first axis of ranks that meet without the others, for all meetings."""
    everyone = local.mesh.shape[0]
    found: set[tuple[int, ...]] = set()
    for instruction in local.instructions if local.homes else ():
        if isinstance(instruction, Collective) and instruction.axis == 0:
            ends = (local.homes[h] for h in (instruction.home, instruction.target_home))
            found.add(tuple(sorted({position for mesh in ends for position in mesh.members(0)})))
    return frozenset(members for members in found if 1 < len(members) < everyone)


def _with_own_sizes(instruction: Instruction, here: LocalProgram) -> Instruction:
    if isinstance(instruction, Collective):
        return instruction
    shapes = tuple(here.slots[slot].shape for slot in instruction.outputs)
    args = localized(
        instruction.op, instruction.args, shapes, lambda value: here.slots[value.node].shape
    )
    return replace(instruction, args=args)
