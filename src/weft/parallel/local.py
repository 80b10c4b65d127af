"""The local program: what every rank of a plan executes, as data.

One instruction list serves all ranks (SPMD). It is made from a program and a plan by
`weft.parallel.spmd`, priced by `weft.parallel.estimate` and executed by `weft.runtime`, so
that what is predicted is what is run. Slots hold local tensors; each is written once. Where ranks
have unlike parts, `weft.parallel.specialize` makes of it what one of them executes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias, TypeGuard

from weft.parallel.placement import Mesh, Sharding
from weft.parallel.plan import Strategy
from weft.program.graph import Arg, Phase, values_in
from weft.program.types import TensorType

__all__ = [
    "Collective",
    "CollectiveKind",
    "Instruction",
    "Lies",
    "LocalInput",
    "LocalProgram",
    "Run",
    "communicates",
]


class CollectiveKind(Enum):
    """What a mesh axis does to a tensor."""

    ALL_REDUCE = "all-reduce"
    ALL_GATHER = "all-gather"
    REDUCE_SCATTER = "reduce-scatter"
    ALL_TO_ALL = "all-to-all"
    SLICE = "slice"
    """Keep the own part of a replica: no communication."""
    MOVE = "move"
    """From the devices of one home to those of another, which sum up what is pending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Apply an operator to local tensors.

    Attributes:
        node: the program's node that this carries out.
        op: operator name.
        args: arguments; a `Value` names a slot in its `node` field. Sizes are local ones.
        outputs: slots written, one for each output of the operator.
        strategy: the node's shardings, for operators that must know where they are
            (an index range, a random mask, a lookup in a split table).
        phase: forward, backward or update; a recomputed forward node runs in backward.
        reads: slots among the arguments, in order.
    """

    node: int
    op: str
    args: tuple[Arg, ...]
    outputs: tuple[int, ...]
    strategy: Strategy
    phase: Phase
    reads: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        reads = tuple([value.node for value in values_in(self.args)])
        object.__setattr__(self, "reads", reads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """Change the placement of a tensor along one mesh axis.

    Attributes:
        kind: which collective.
        axis: mesh axis whose devices take part.
        reduce: "sum" or "max" for reductions, else empty.
        source_dim: tensor dim that is cut before (all-gather, all-to-all), else -1.
        target_dim: tensor dim that is cut after (reduce-scatter, all-to-all, slice), else -1.
        source, target: slots.
        node: the program's node that made the value.
        phase: phase of the readers.
        bundle: number of the message in which it travels with its neighbours of the same
            number; -1 if it travels alone.
        lasts: its result is a weight that stays for all of the step, micro-batch after
            micro-batch.
        home: where it takes place, see `ParallelPlan.homes`.
        target_home: of a move, where it leads; else `home`.
    """

    kind: CollectiveKind
    axis: int
    source: int
    target: int
    node: int
    phase: Phase
    reduce: str = ""
    source_dim: int = -1
    target_dim: int = -1
    bundle: int = -1
    lasts: bool = False
    home: int = 0
    target_home: int = 0


Instruction: TypeAlias = Run | Collective


def communicates(instruction: object) -> TypeGuard[Collective]:
    """True of collectives for which anything is sent; a slice takes a part of what is there."""
    return isinstance(instruction, Collective) and instruction.kind is not CollectiveKind.SLICE


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalInput:
    """An input of the local program: the program's input by name, its slot, sharding and home."""

    name: str
    slot: int
    sharding: Sharding
    home: int = 0


@dataclass(frozen=True, slots=True)
class Lies:
    """How the tensor in a slot lies: the whole of it, its sharding, and its home."""

    whole: TensorType
    sharding: Sharding
    home: int = 0


@dataclass(frozen=True, kw_only=True)
class LocalProgram:
    """What every rank executes.

    Attributes:
        mesh: the device grid.
        slots: local type of each slot; where devices have unlike parts, that of the device that
            has most.
        inputs: in the program's order.
        instructions: in execution order. A collective may be started where it stands and
            waited for at its first reader.
        last_use: for each slot, the index of the last instruction that reads it; the number of
            instructions for what the step returns, -1 for what nothing reads.
        loss: slot of the loss, replicated.
        updates: (name of an input, slot of its next value); same sharding as the input.
        homes: meshes by number of home, the first of which is `mesh`; none in an even plan.
        lies: how the tensor of each slot lies; none in an even plan.
    """

    mesh: Mesh
    slots: tuple[TensorType, ...]
    inputs: tuple[LocalInput, ...]
    instructions: tuple[Instruction, ...]
    last_use: tuple[int, ...]
    loss: int
    updates: tuple[tuple[str, int], ...]
    homes: tuple[Mesh, ...] = ()
    lies: tuple[Lies, ...] = ()

    @property
    def is_even(self) -> bool:
        """True if all ranks execute it as it is."""
        return not self.homes

    def mesh_of(self, home: int) -> Mesh:
        """The mesh of a home."""
        return self.homes[home] if self.homes else self.mesh
