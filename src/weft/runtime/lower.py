"""The torch form of a local program: one graph module for this rank's whole step.

Nodes are ATen overloads, weft's own torch operators and functional collectives, so the same
instructions run eagerly and through Inductor. In the eager form the inputs come in a list, and
each is taken out of it before its first reader, so that nothing outside keeps it alive after
its last one. In the other form the inputs are placeholders and the next state is copied over
the old one, which a compiler turns into kernels that write in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from weft.core.errors import WeftError
from weft.parallel.local import Collective, CollectiveKind, Instruction, LocalProgram, Run
from weft.parallel.prefetch import slots_read
from weft.parallel.transfer import line_shape
from weft.program.graph import Arg, Program, Value, map_values
from weft.program.operators import Kind, operator
from weft.program.types import TensorType
from weft.runtime.emit import Call, emit_run
from weft.runtime.emit_collective import emit_message, emit_start
from weft.runtime.pieces import Piece
from weft.runtime.place import Place
from weft.runtime.transfer import Finish, Transfer

__all__ = ["borrowed_slots", "eager_module", "in_place_module", "some_module", "take"]

aten = torch.ops.aten


def eager_module(local: LocalProgram, program: Program, place: Place) -> fx.GraphModule:
    """The step as `module(inputs) -> (loss, next value of each update in order)`.

    Args:
        local: what every rank executes.
        program: the program with the plan's recomputation applied, for sizes of whole tensors.
        place: where this rank stands.

    Returns:
        A module that takes one list of tensors in the order of `local.inputs` and leaves None
        in each place of it that it has read.

    Raises:
        VerifyError: an instruction has no torch form; the message names the instruction.
    """
    emission = _Emission(local, program, place)
    box = emission.graph.placeholder("inputs")
    for position, source in enumerate(local.inputs):
        emission.promise(source.slot, _taking(emission.graph, box, position))
    emission.emit()
    emission.graph.output((emission.read(local.loss), *emission.next_values()))
    return fx.GraphModule(nn.Module(), emission.graph, "EagerStep")


def in_place_module(local: LocalProgram, program: Program, place: Place) -> fx.GraphModule:
    """The step as `module(*inputs) -> (loss,)`, which writes the next state over the old one.

    Args:
        local: what every rank executes.
        program: the program with the plan's recomputation applied, for sizes of whole tensors.
        place: where this rank stands.

    Raises:
        VerifyError: an instruction has no torch form; the message names the instruction.
    """
    emission = _Emission(local, program, place)
    old: dict[str, fx.Node] = {}
    for position, source in enumerate(local.inputs):
        node = old[source.name] = emission.graph.placeholder(f"input_{position}")
        emission.put(source.slot, node)
    emission.emit()
    loss, values = emission.read(local.loss), emission.next_values()
    for (name, _), value in zip(local.updates, values, strict=True):
        if value is not old[name]:
            emission.graph.call_function(aten.copy_.default, (old[name], value))
    emission.graph.output((loss,))
    return fx.GraphModule(nn.Module(), emission.graph, "InPlaceStep")


def some_module(
    local: LocalProgram,
    program: Program,
    place: Place,
    piece: Piece,
    *,
    row_major: bool = False,
) -> fx.GraphModule:
    """Some instructions as `module(slots that they read) -> slots that they write`.

    The module takes one list of tensors and leaves None in each place of it that it has read. A
    compiler is told to empty the list before it runs. What the piece replaces is written over.

    Args:
        local: what every rank executes.
        program: its program.
        place: where this rank stands.
        piece: the instructions.
        row_major: whether what is returned lies in row-major order.
    """
    some = tuple([local.instructions[number] for number in piece.numbers])
    emission = _Emission(replace(local, instructions=some), program, place)
    box = emission.graph.placeholder("inputs")
    box.meta["steal_arg"] = True  # torch._dynamo.utils.flatten_graph_inputs
    for position, slot in enumerate(piece.reads):
        emission.promise(slot, _taking(emission.graph, box, position))
    emission.emit()
    old = [emission.read(slot) for slot, _ in piece.replaces]
    new = [emission.read(slot) for _, slot in piece.replaces]
    made = [emission.read(slot) for slot in piece.writes]
    if row_major:
        made = [emission.graph.call_function(aten.contiguous.default, (node,)) for node in made]
    for before, after in zip(old, new, strict=True):
        emission.graph.call_function(aten.copy_.default, (before, after))
    emission.graph.output(tuple(made))
    return fx.GraphModule(nn.Module(), emission.graph, "Segment")


def borrowed_slots(local: LocalProgram, place: Place) -> frozenset[int]:
    """Slots whose values may lie in the memory of an input.

    Args:
        local: what every rank executes.
        place: where this rank stands; a collective among one rank passes its operand on.
    """
    found = {source.slot for source in local.inputs}
    for instruction in local.instructions:
        if isinstance(instruction, Run):
            reads = slots_read(instruction)
            if _borrows(instruction) and reads[0] in found:
                found.update(instruction.outputs)
            continue
        alone = len(local.mesh_of(instruction.home).members(instruction.axis)) == 1
        passes = alone or instruction.kind is CollectiveKind.SLICE
        if passes and instruction.source in found:
            found.add(instruction.target)
    return frozenset(found)


def take(inputs: list[Tensor | None], position: int) -> Tensor:
    """Take a tensor out of a list; the list no longer keeps it alive."""
    tensor = inputs[position]
    assert tensor is not None
    inputs[position] = None
    return tensor


def _taking(graph: fx.Graph, box: fx.Node, position: int) -> Callable[[], fx.Node]:
    return lambda: graph.call_function(take, (box, position))


class _Emission:
    """Appends instructions to a graph; lives only while a module is built."""

    def __init__(self, local: LocalProgram, program: Program, place: Place) -> None:
        self.graph = fx.Graph()
        self._local = local
        self._program = program
        self._place = place
        self._nodes: dict[int, fx.Node] = {}
        self._promised: dict[int, Callable[[], fx.Node]] = {}
        self._borrowed = borrowed_slots(local, place)
        self._sent: list[Finish] = []
        self._under_way: set[int] = set()

    def put(self, slot: int, node: fx.Node) -> None:
        """A slot's value is there."""
        self._nodes[slot] = node

    def promise(self, slot: int, finish: Callable[[], fx.Node]) -> None:
        """A slot's value will be there once somebody reads it."""
        self._promised[slot] = finish

    def read(self, slot: int) -> fx.Node:
        """Node of a slot's value."""
        finish = self._promised.pop(slot, None)
        if finish is not None:
            self._nodes[slot] = finish()
        return self._nodes[slot]

    def emit(self) -> None:
        """Append all instructions."""
        instructions = self._local.instructions
        for number, instruction in enumerate(instructions):
            try:
                if isinstance(instruction, Run):
                    self._add_run(instruction)
                elif instruction.bundle < 0:
                    self._add_collective(instruction)
                elif number == 0 or not _goes_on(instructions[number - 1], instruction.bundle):
                    self._add_message(_message(instructions, number))
            except WeftError as error:
                raise error.within(
                    f"instruction {number}: {_describe(instruction)}"
                ) from error.__cause__
        for slot in sorted(self._under_way & self._promised.keys()):
            self.read(slot)  # what reads it does nothing here
        for finish in self._sent:
            finish()

    def next_values(self) -> list[fx.Node]:
        """Nodes of the updates' values, in row-major order and never a part of another input."""
        own = {source.name: source.slot for source in self._local.inputs}
        values: list[fx.Node] = []
        for name, slot in self._local.updates:
            node = self.read(slot)
            if slot != own[name]:
                order = {"memory_format": torch.contiguous_format}
                copies = aten.clone if slot in self._borrowed else aten.contiguous
                node = self.graph.call_function(copies.default, (node,), cast("Any", order))
            values.append(node)
        return values

    def _add_run(self, run: Run) -> None:
        if all(self._local.last_use[slot] < 0 for slot in run.outputs):
            return
        node = self._program.nodes[run.node]
        read: list[int] = []

        def resolve(value: Value) -> Arg:
            read.append(value.node)
            return cast("Arg", self.read(value.node))

        call = Call(
            graph=self.graph,
            run=run,
            args=map_values(run.args, resolve),
            operands=self._types(tuple(read)),
            outputs=self._types(run.outputs),
            whole_operands=tuple(map(self._program.type_of, self._program.operands(run.node))),
            whole_outputs=node.outputs,
            place=self._place.at(run.strategy.home),
        )
        made = emit_run(call)
        for slot, value in zip(run.outputs, _as_tuple(made), strict=True):
            self._nodes[slot] = value

    def _add_collective(self, collective: Collective) -> None:
        is_read = self._local.last_use[collective.target] >= 0
        if not is_read and self._local.is_even:
            return
        self._expect(collective, emit_start(self._transfer(collective)), is_read=is_read)

    def _expect(self, collective: Collective, finish: Finish, *, is_read: bool) -> None:
        """What a collective makes is there later; it is waited for even if only others read it."""
        if is_read:
            self.promise(collective.target, finish)
            if not self._local.is_even:
                self._under_way.add(collective.target)
        else:
            self._sent.append(finish)

    def _holds(self, slot: int) -> bool:
        """True if the rank has a part of what is in a slot."""
        local = self._local
        return local.is_even or local.homes[local.lies[slot].home].has(self._place.coordinate)

    def _add_message(self, collectives: Sequence[Collective]) -> None:
        """Collectives that travel together."""
        read = [c for c in collectives if self._local.last_use[c.target] >= 0]
        wanted = read if self._local.is_even else collectives
        finishes = emit_message([self._transfer(collective) for collective in wanted])
        for collective, finish in zip(wanted, finishes, strict=True):
            self._expect(collective, finish, is_read=collective in read)

    def _transfer(self, collective: Collective) -> Transfer:
        local, place = self._local, self._place.at(collective.home)
        source, target = self._types((collective.source, collective.target))
        moves = collective.kind is CollectiveKind.MOVE
        line: tuple[int, ...] = ()
        if moves or not place.mesh.cuts_evenly(collective.axis):
            lies = local.lies[collective.source]
            line = line_shape(lies.whole.shape, lies.sharding, local.mesh, collective.axis)
        return Transfer(
            graph=self.graph,
            collective=collective,
            value=self.read(collective.source) if self._holds(collective.source) else None,
            source=source,
            target=target,
            place=place,
            line=line,
            leads_to=local.homes[collective.target_home] if moves else None,
        )

    def _types(self, slots: tuple[int, ...]) -> tuple[TensorType, ...]:
        return tuple(self._local.slots[slot] for slot in slots)


def _goes_on(before: Instruction, bundle: int) -> bool:
    """True if an instruction belongs to the message that the next one belongs to."""
    return isinstance(before, Collective) and before.bundle == bundle


def _message(instructions: Sequence[Instruction], first: int) -> list[Collective]:
    """Collectives of one message, which stand side by side."""
    message: list[Collective] = []
    for instruction in instructions[first:]:
        if not isinstance(instruction, Collective):
            break
        if message and instruction.bundle != message[0].bundle:
            break
        message.append(instruction)
    return message


def _as_tuple(made: fx.Node | tuple[fx.Node, ...]) -> tuple[fx.Node, ...]:
    return made if isinstance(made, tuple) else (made,)


def _borrows(run: Run) -> bool:
    """True if the result may be the operand's own memory."""
    passes = ("slice", "cast", "send", "accumulate")
    return operator(run.op).kind is Kind.VIEW or run.op in passes


def _describe(instruction: Run | Collective) -> str:
    if isinstance(instruction, Run):
        return f"{instruction.op} of node %{instruction.node}"
    return f"{instruction.kind.value} of node %{instruction.node} along axis {instruction.axis}"
