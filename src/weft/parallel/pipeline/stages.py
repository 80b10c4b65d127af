"""A program cut into pipeline stages: a program for each stage, and what flows between them.

A cut gives every node of the forward pass a stage. The rest follows:

- a node that no parameter or random number takes part in (masks, positions) is computed
  wherever it is read, and so is state that all updates share (the optimizer's step counter);
- a parameter lives in the first stage that reads it, with its casts, its optimizer state and its
  update;
- a node of the backward pass stands in the last stage that has all it reads: the forward
  values that were made or read there, and gradients, which travel from late stages to early;
  what only leads to the update of a parameter stands where that lives, if all is there too.

What one stage makes and another reads travels from stage to stage, one boundary after the
other, in each micro-batch, or once a step if it does not depend on the micro-batch. A `send`
node hands it on, an input of role "received" or "shared" takes it up.

Source: stages on the graph itself as in TePDist, the open form of Rhino (arXiv 2302.08141), where
a value that skips stages is relayed; the rules of placement above are weft's own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from weft.core.errors import InputError
from weft.parallel.loop import varying_nodes
from weft.parallel.weights import parameters_led_to, weight_values
from weft.program.builder import Builder
from weft.program.graph import Phase, Program, Role, Value, map_values

__all__ = ["Parcel", "StageProgram", "forward_nodes", "stage_of_nodes", "stage_programs"]

EVERYWHERE = -1
"""Stage of a node that is computed wherever it is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A value that crosses one boundary.

    Attributes:
        name: of the input that takes it up, and argument of the node that sends it.
        source, target: stages; they are neighbours except in the update.
        phase: forward goes to the next stage, backward to the one before, update anywhere.
        once: it crosses once a step, the same for all micro-batches.
        number: counts all parcels of a program, those that depend on others after them.
    """

    number: int
    name: str
    source: int
    target: int
    phase: Phase
    once: bool


@dataclass(frozen=True, kw_only=True)
class StageProgram:
    """What one stage computes.

    Attributes:
        number: of the stage, from 0.
        program: its nodes; the loss of all stages but those that make it is zero.
        sends, receives: what crosses its boundaries, in the order in which it is made.
        origin: for each node of `program`, what it makes by its place in the whole program: its
            first output, or the value that it sends or receives; none for the loss of a stage
            that has no part in it.
    """

    number: int
    program: Program
    sends: tuple[Parcel, ...]
    receives: tuple[Parcel, ...]
    origin: tuple[Value | None, ...]


def stage_of_nodes(program: Program, forward: Sequence[int]) -> tuple[int, ...]:
    """Stage of every node, from those of the forward pass.

    Args:
        program: of one micro-batch.
        forward: stage of each node of the forward pass, by node number; what is given for
            inputs and for nodes that are computed everywhere does not count.

    Returns:
        By node number; -1 for what is computed wherever it is read.

    Raises:
        InputError: a node of the backward pass reads what no stage has together.
    """
    return _Assignment(program, forward).run()


class _Assignment:
    """Spreads stages from the forward pass over a program."""

    def __init__(self, program: Program, forward: Sequence[int]) -> None:
        self._program = program
        self._forward = forward
        self._free = free_nodes(program)
        self._stage = [EVERYWHERE] * len(program.nodes)
        self._readers: list[set[int]] = [set() for _ in program.nodes]
        self._leads_to = parameters_led_to(program)
        self._weights = weight_values(program)
        self._states: dict[str, list[int]] = {}
        for source in program.inputs:
            if source.parameter:
                self._states.setdefault(source.parameter, []).append(source.node)

    def run(self) -> tuple[int, ...]:
        program = self._program
        own = _given_to_stages(program, self._free, self._weights)
        for number in own:
            self._stage[number] = self._forward_stage(number)
        # Weights live in the first stage that reads them, whichever reader is computed first.
        for number in sorted(own, key=self._stage.__getitem__):
            self._note_reads(number)
        for number, node in enumerate(program.nodes):
            settled = node.phase is Phase.FORWARD or self._free[number]
            if settled or Value(number) in self._weights:
                continue
            place = {
                Phase.BACKWARD: self._backward_stage,
                Phase.UPDATE: self._update_stage,
            }[node.phase]
            self._stage[number] = place(number)
            self._note_reads(number)
        return tuple(self._stage)

    def _note_reads(self, number: int) -> None:
        forward = self._program.nodes[number].phase is Phase.FORWARD
        for value in self._program.operands(number):
            if forward:
                self._readers[value.node].add(self._stage[number])
            if self._home(value.node) == EVERYWHERE:
                self._settle(value.node, self._stage[number])

    def _settle(self, number: int, stage: int) -> None:
        """A weight lives where it is read first, and with it what it is made of and its state."""
        if self._free[number] or Value(number) not in self._weights:
            return
        self._stage[number] = stage
        source = self._program.input_by_node.get(number)
        if source is None:
            for value in self._program.operands(number):
                self._readers[value.node].add(stage)
                if self._home(value.node) == EVERYWHERE:
                    self._settle(value.node, stage)
            return
        for state in self._states.get(source.name, ()):
            self._stage[state] = stage

    def _unsettled(self, node: int) -> bool:
        """True for a weight that nobody has read yet."""
        return self._home(node) == EVERYWHERE and Value(node) in self._weights

    def _home(self, node: int) -> int:
        return self._stage[node]

    def _forward_stage(self, number: int) -> int:
        """As given, and not before what it reads."""
        flows = [
            self._home(value.node)
            for value in self._program.operands(number)
            if value not in self._weights
        ]
        return max([self._forward[number], *flows])

    def _backward_stage(self, number: int) -> int:
        allowed: set[int] | None = None
        latest: int | None = None
        for value in self._program.operands(number):
            if self._free[value.node] or self._unsettled(value.node):
                continue
            if self._program.nodes[value.node].phase is Phase.BACKWARD:
                stage = self._home(value.node)
                latest = stage if latest is None else min(latest, stage)
            else:
                here = self._readers[value.node] | {self._home(value.node)}
                allowed = here if allowed is None else allowed & here
        return self._latest(number, allowed, latest)

    def _latest(self, number: int, allowed: set[int] | None, latest: int | None) -> int:
        if allowed is None:
            assert latest is not None
            return latest
        fits = [stage for stage in allowed if latest is None or stage <= latest]
        if fits:
            home = self._only_home(number)
            return home if home in fits else max(fits)
        made = [
            self._home(value.node)
            for value in self._program.operands(number)
            if not self._free[value.node]
            and not self._unsettled(value.node)
            and self._program.nodes[value.node].phase is not Phase.BACKWARD
        ]
        if latest is None or max(made) <= latest:
            return max(made) if latest is None else latest
        node = self._program.nodes[number]
        raise InputError(
            need="stages in which the backward pass finds what it reads",
            got=f"{node.op} in {node.scope or 'the loss'}, whose operands lie in stages "
            f"{sorted(made)}, and whose gradient has come to stage {latest}",
            hint="cut the stages elsewhere",
        )

    def _update_stage(self, number: int) -> int:
        home = self._only_home(number)
        if home is not None:
            return home
        return max(
            self._home(value.node)
            for value in self._program.operands(number)
            if not self._free[value.node]
        )

    def _only_home(self, number: int) -> int | None:
        """Where the one parameter lives that a node leads to; none if it leads to several."""
        parameter = self._leads_to[number]
        return self._home(parameter) if parameter >= 0 else None


def free_nodes(program: Program) -> list[bool]:
    """For each node, whether any stage may compute it for itself.

    That is so if nothing takes part in it but constants, the batch, the seed, buffers that no
    step changes, and state that changes in the same way everywhere.
    """
    changed = dict(program.updates)
    free = [
        source is None
        or source.role in (Role.BATCH, Role.SEED, Role.MICRO_BATCH)
        or (source.role is Role.BUFFER and number not in changed)
        or (source.role is Role.STATE and not source.parameter)
        for number in range(len(program.nodes))
        for source in (program.input_by_node.get(number),)
    ]
    settled = False
    while not settled:
        settled = True
        for number in range(len(program.nodes)):
            if free[number] and not all(free[value.node] for value in program.operands(number)):
                free[number] = False
        for old, new in changed.items():
            if free[old] and not free[new.node]:
                free[old] = settled = False
    return free


def forward_nodes(part: Program) -> list[int]:
    """Nodes of the forward pass that a cut gives to a stage, in order."""
    return _given_to_stages(part, free_nodes(part), weight_values(part))


def _given_to_stages(part: Program, free: Sequence[bool], weights: Set[Value]) -> list[int]:
    return [
        number
        for number, node in enumerate(part.nodes)
        if node.phase is Phase.FORWARD and not free[number] and Value(number) not in weights
    ]


def stage_programs(program: Program, stages: Sequence[int]) -> tuple[StageProgram, ...]:
    """A program for each stage.

    Args:
        program: of one micro-batch.
        stages: of each node, as `stage_of_nodes` gives them.
    """
    writers = [_Writer(program, number) for number in range(max(0, *stages) + 1)]
    _Cutting(program, stages, writers).run()
    return tuple(writer.build() for writer in writers)


@dataclass
class _Writer:
    """Collects the nodes of one stage."""

    program: Program
    number: int
    builder: Builder = field(init=False)
    here: dict[Value, Value] = field(default_factory=dict[Value, Value])
    origin: list[Value | None] = field(default_factory=list[Value | None])
    sends: list[Parcel] = field(default_factory=list[Parcel])
    receives: list[Parcel] = field(default_factory=list[Parcel])
    updates: list[tuple[Value, Value]] = field(default_factory=list[tuple[Value, Value]])
    loss: Value | None = None

    def __post_init__(self) -> None:
        self.builder = Builder(f"{self.program.name}, stage {self.number}")

    def build(self) -> StageProgram:
        loss = self.loss
        assert loss is not None
        built = self.builder.build(loss, tuple(self.updates))
        return StageProgram(
            number=self.number,
            program=built,
            sends=tuple(self.sends),
            receives=tuple(self.receives),
            origin=tuple(self.origin),
        )


class _Cutting:
    """Deals the nodes of a program out to stages; lives only inside `stage_programs`."""

    def __init__(self, program: Program, stages: Sequence[int], writers: Sequence[_Writer]) -> None:
        self._program = program
        self._stages = stages
        self._writers = writers
        self._wanted = self._stages_that_want()
        self._varies = varying_nodes(program)
        self._count = 0

    def run(self) -> None:
        phase = Phase.FORWARD
        for number, node in enumerate(self._program.nodes):
            if node.phase is not phase:
                self._close(phase)
                phase = node.phase
            own = self._stages[number]
            for stage in sorted(self._wanted[number]) if own == EVERYWHERE else (own,):
                self._copy(number, self._writers[stage])
            if own != EVERYWHERE:
                for output in range(len(node.outputs)):
                    self._carry(Value(number, output), own)
        self._close(phase)
        for old, new in self._program.updates:
            home = self._stages[new.node]
            for writer in self._writers if home == EVERYWHERE else (self._writers[home],):
                if Value(old) in writer.here and new in writer.here:
                    writer.updates.append((writer.here[Value(old)], writer.here[new]))

    def _close(self, phase: Phase) -> None:
        """At the end of the forward pass every stage has its part of the loss."""
        if phase is not Phase.FORWARD:
            return
        for writer in self._writers:
            writer.loss = writer.here.get(self._program.loss)
            if writer.loss is None:
                dtype = self._program.type_of(self._program.loss).dtype.value
                writer.loss = writer.builder.add("full", (), 0.0, dtype)
                writer.origin.append(None)

    def _copy(self, number: int, writer: _Writer) -> None:
        node, source = self._program.nodes[number], self._program.input_by_node.get(number)
        if source is not None:
            made: tuple[Value, ...] = (
                writer.builder.input(
                    source.name,
                    source.role,
                    node.outputs[0],
                    source.parameter,
                    node.scope,
                    source.shape,
                ),
            )
        else:
            made = writer.builder.copy(node, map_values(node.args, writer.here.__getitem__))
        if node.pins:
            writer.builder.pin(made[0], node.pins)
        writer.origin.append(Value(number))
        writer.here.update((Value(number, output), value) for output, value in enumerate(made))

    def _carry(self, value: Value, home: int) -> None:
        """Send a value on its way to the other stages that read it."""
        node = self._program.nodes[value.node]
        readers = self._readers(value)
        if not readers:
            return
        if node.phase is Phase.UPDATE or node.op == "accumulate":
            for stage in sorted(readers):
                self._hand_over(value, home, stage, Phase.UPDATE)
            return
        for stage in range(home, max(readers, default=home)):
            self._hand_over(value, stage, stage + 1, Phase.FORWARD)
        for stage in range(home, min(readers, default=home), -1):
            self._hand_over(value, stage, stage - 1, node.phase)

    def _hand_over(self, value: Value, source: int, target: int, phase: Phase) -> None:
        output = f".{value.output}" if value.output else ""
        name = f"{phase.value}.{value.node}{output}.{source}.{target}"
        once = not self._varies[value.node]
        parcel = Parcel(
            number=self._count, name=name, source=source, target=target, phase=phase, once=once
        )
        self._count += 1
        giver, taker = self._writers[source], self._writers[target]
        scope = self._program.nodes[value.node].scope
        made = self._program.nodes[value.node].phase
        giver.builder.add("send", giver.here[value], name, phase=made, scope=scope)
        giver.origin.append(value)
        giver.sends.append(parcel)
        taker.here[value] = taker.builder.input(
            name, Role.SHARED if once else Role.RECEIVED, self._program.type_of(value), scope=scope
        )
        taker.origin.append(value)
        taker.receives.append(parcel)

    def _readers(self, value: Value) -> set[int]:
        """Stages other than its own that read a value."""
        own, found = self._stages[value.node], set[int]()
        for reader, position in self._program.users[value.node]:
            if self._program.operands(reader)[position] != value:
                continue
            stage = self._stages[reader]
            if stage == EVERYWHERE:
                found |= self._wanted[reader]
            else:
                found.add(stage)
        return found - {own}

    def _stages_that_want(self) -> defaultdict[int, set[int]]:
        """Of each node that is computed everywhere, the stages that read it."""
        wanted: defaultdict[int, set[int]] = defaultdict(set)
        program, everyone = self._program, range(len(self._writers))
        for old, new in program.updates:
            if self._stages[new.node] == EVERYWHERE:
                wanted[new.node].update(everyone)
                wanted[old].update(everyone)
        if self._stages[program.loss.node] == EVERYWHERE:
            wanted[program.loss.node].add(everyone[-1])
        for number in reversed(range(len(program.nodes))):
            own = self._stages[number]
            stages = wanted[number] if own == EVERYWHERE else {own}
            for value in program.operands(number):
                if self._stages[value.node] == EVERYWHERE:
                    wanted[value.node] |= stages
        return wanted
