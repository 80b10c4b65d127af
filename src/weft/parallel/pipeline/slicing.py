"""From a decision for a micro-batch's program to the plan of one of its stages.

A stage's nodes are nodes of the whole program, so they do as those do. What crosses a boundary
travels in the sharding that its readers share, or else as it is made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from itertools import pairwise

from weft.machine.model import Machine
from weft.parallel.candidate import simulate_plan, unpriced
from weft.parallel.copies import Decision, copies_for, recomputed
from weft.parallel.degrees import Degrees
from weft.parallel.kept import require_kept
from weft.parallel.pipeline.again import Recompute, run_again
from weft.parallel.pipeline.in_pieces import Rows
from weft.parallel.pipeline.plan import StagedProgram
from weft.parallel.pipeline.stages import StageProgram
from weft.parallel.placement import Mesh, Sharding, is_partial
from weft.parallel.plan import Level, ParallelPlan, Strategy
from weft.parallel.propagate import combine
from weft.parallel.recompute import Expanded, expand
from weft.parallel.reshard import Resharding
from weft.program.graph import Phase, Program, Value
from weft.program.lengthen import Lengthened

__all__ = ["Slicer", "stage_plans"]


@dataclass(frozen=True)
class Slicer:
    """Makes the plans of stages from one decision.

    Attributes:
        part: the program of one micro-batch.
        decision: for all of it.
        machine, mesh: where a stage runs.
        resharding: hop tables of the mesh.
        limit_bytes: limit of one device [bytes].
        level: how the decision was found.
    """

    part: Program
    decision: Decision
    machine: Machine
    mesh: Mesh
    resharding: Resharding
    limit_bytes: float
    level: Level

    @classmethod
    def by_degrees(cls, rows: Rows, degrees: Degrees, limit_bytes: float) -> Slicer:
        """Of what an engineer writes.

        Args:
            rows: the program of one micro-batch.
            degrees: of a group of devices.
            limit_bytes: limit of one device [bytes].

        Raises:
            InputError: the sizes of the program do not divide by the degrees.
            InfeasibleError: the pins are not kept.
        """
        axes, lasting = rows.schemes.axes(degrees)
        mesh, machine, part = degrees.mesh, rows.machine, rows.part
        decision, resharding = Decision(combine(axes), {}, lasting), Resharding(machine, mesh)
        if rows.pinning.values:
            copies = copies_for(part, decision, resharding)
            require_kept(mesh, decision.strategies, copies, part, rows.pinning)
        return cls(part, decision, machine, mesh, resharding, limit_bytes, Level.EXPERT)

    def lifted(self, whole: Lengthened) -> Slicer:
        """What makes the plans of stages of a deep program: its layers do as those of the short.

        Args:
            whole: grown from the part.
        """
        placed, decision = whole.origin, self.decision
        copies: defaultdict[int, list[int]] = defaultdict(list)
        for number, origin in enumerate(placed):
            copies[origin].append(number)
        return replace(
            self,
            part=whole.program,
            decision=Decision(
                tuple(decision.strategies[origin] for origin in placed),
                {
                    (Value(number, value.output), phase): hub
                    for (value, phase), hub in decision.hubs.items()
                    for number in copies[value.node]
                },
                frozenset(
                    Value(number, value.output)
                    for value in decision.lasting
                    for number in copies[value.node]
                ),
            ),
        )

    def plan(self, stage: StageProgram, expanded: Expanded) -> ParallelPlan:
        """The plan of a stage.

        Args:
            stage: cut from the part.
            expanded: its program with recomputation.
        """
        decision = self._settled(stage, self._of(stage))
        if expanded.chosen:
            decision = recomputed(decision, stage.program, expanded)
        return unpriced(
            stage.program,
            self.machine,
            self.mesh,
            decision.strategies,
            copies_for(expanded.program, decision, self.resharding),
            memory_limit_bytes=self.limit_bytes,
            recompute=expanded.chosen,
            level=self.level,
        )

    def _of(self, stage: StageProgram) -> Decision:
        whole, program = self.decision, stage.program
        strategies: list[Strategy] = []
        hubs: dict[tuple[Value, Phase], Sharding] = {}
        staying: set[Value] = set()
        for number, origin in enumerate(stage.origin):
            node = program.nodes[number]
            if origin is None:
                strategies.append(Strategy(outputs=((-1,) * self.mesh.num_axes,), operands=()))
                continue
            if node.op == "send":
                sent = self.crossing(origin)
                strategies.append(Strategy(outputs=(sent,), operands=(sent,)))
                continue
            received = node.op != self.part.nodes[origin.node].op
            if received or (number in program.input_by_node and origin.output):
                strategies.append(Strategy(outputs=(self.crossing(origin),), operands=()))
            else:
                strategies.append(whole.strategies[origin.node])
            for output in range(len(node.outputs)):
                value = Value(origin.node, origin.output + output)
                own = Value(number, output)
                for phase in Phase:
                    hub = whole.hubs.get((value, phase))
                    if hub is not None:
                        hubs[own, phase] = hub
                if value in whole.lasting:
                    staying.add(own)
        return Decision(tuple(strategies), hubs, frozenset(staying))

    def _settled(self, stage: StageProgram, decision: Decision) -> Decision:
        """The decision with what reads summands of a received value reading all of it.

        A value that crosses a boundary is summed up before. A node that would have read its
        summands does what it does on every device of that axis, and so do its readers.
        """
        program = stage.program
        strategies = list(decision.strategies)
        for number, strategy in enumerate(strategies):
            operands = program.operands(number)
            axes = {
                axis
                for value, read in zip(operands, strategy.operands, strict=True)
                for axis, placement in enumerate(read)
                if is_partial(placement)
                and not is_partial(strategies[value.node].outputs[value.output][axis])
            }
            if axes:
                strategies[number] = Strategy(
                    outputs=tuple(_whole_along(axes, s) for s in strategy.outputs),
                    operands=tuple(_whole_along(axes, s) for s in strategy.operands),
                )
        hubs = {
            (value, phase): hub
            for (value, phase), hub in decision.hubs.items()
            if not _adds_summands(strategies[value.node].outputs[value.output], hub)
        }
        return replace(decision, strategies=tuple(strategies), hubs=hubs)

    def crossing(self, value: Value) -> Sharding:
        """In which sharding a value travels from stage to stage."""
        made = self.decision.strategies[value.node].outputs[value.output]
        phases = (Phase.FORWARD, Phase.BACKWARD, Phase.UPDATE)
        hubs = (self.decision.hubs.get((value, phase)) for phase in phases)
        wanted = (
            self.decision.strategies[reader].operands[position]
            for reader, position in self.part.users[value.node]
            if self.part.operands(reader)[position] == value
        )
        summed = tuple(-1 if is_partial(place) else place for place in made)
        choices = (*(hub for hub in hubs if hub is not None), made, *wanted, summed)
        return next(s for s in choices if not any(map(is_partial, s)))


def _whole_along(axes: Set[int], sharding: Sharding) -> Sharding:
    return tuple(-1 if axis in axes else place for axis, place in enumerate(sharding))


def _adds_summands(made: Sharding, hub: Sharding) -> bool:
    """True if a shared version would be pending where the value as made is not."""
    pairs = zip(made, hub, strict=True)
    return any(is_partial(wanted) and not is_partial(place) for place, wanted in pairs)


def stage_plans(
    rows: Rows,
    staged: StagedProgram,
    cuts: Sequence[int],
    again: Sequence[Recompute],
    slicers: Sequence[Slicer],
) -> tuple[ParallelPlan, ...]:
    """Plans of all stages, simulated; those that are alike and recompute alike share one.

    Where something is pinned by its path, stages that are alike may be placed differently.

    Args:
        rows: the program of one micro-batch.
        staged: the whole program, cut into the stages.
        cuts: first piece of each stage but the first.
        again: what each of them recomputes.
        slicers: of each, what makes its plan, lifted to the whole program.
    """
    pieces = rows.whole_cut
    alike = range(len(staged.stages)) if rows.pinning.values else staged.alike
    known: dict[object, ParallelPlan] = {}
    plans: list[ParallelPlan] = []
    runs = pairwise([0, *cuts, pieces.num_stages])
    for number, ((first, end), own) in enumerate(zip(runs, again, strict=True)):
        slicer = slicers[number]
        key = (alike[number], end - first, own, id(slicer))
        if key not in known:
            stage = staged.stages[number]
            expanded = expand(stage.program, run_again(stage, pieces, first, own))
            plan = slicer.plan(stage, expanded)
            _, prediction = simulate_plan(plan, stage.program, slicer.machine, expanded)
            known[key] = replace(plan, prediction=prediction)
        plans.append(staged.plan_for(number, known[key]))
    return tuple(plans)
