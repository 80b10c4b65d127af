"""From a decision for a micro-batch's program to the plan of one of its stages.

A stage's nodes are nodes of the whole program, so they do as those do. What crosses a boundary
travels in the sharding that its readers share, or else as it is made.
"""

from __future__ import annotations

from dataclasses import dataclass

from weft.core.errors import InputError
from weft.machine.model import Machine
from weft.parallel.copies import Decision, copies_for, recomputed
from weft.parallel.pipeline.stages import StageProgram
from weft.parallel.placement import Mesh, Sharding, is_partial
from weft.parallel.plan import Level, ParallelPlan, Prediction, Strategy
from weft.parallel.recompute import Expanded
from weft.parallel.reshard import Resharding
from weft.program.graph import Phase, Program, Value

__all__ = ["Slicer"]

_UNKNOWN = Prediction(
    step_s=0.0, compute_s=0.0, communication_s=0.0, exposed_s=0.0, peak_bytes=0.0, state_bytes=0.0
)


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

    def plan(self, stage: StageProgram, expanded: Expanded) -> ParallelPlan:
        """The plan of a stage.

        Args:
            stage: cut from the part.
            expanded: its program with recomputation.

        Raises:
            InputError: the stage reads summands of what another stage has summed up.
        """
        decision = self._of(stage)
        self._require_sums(stage, decision)
        if expanded.chosen:
            decision = recomputed(decision, stage.program, expanded)
        return ParallelPlan(
            program_name=stage.program.name,
            program_digest=stage.program.digest,
            machine_name=self.machine.name,
            machine_digest=self.machine.digest,
            mesh=self.mesh,
            strategies=decision.strategies,
            copies=copies_for(expanded.program, decision, self.resharding),
            recompute=expanded.chosen,
            memory_limit_bytes=self.limit_bytes,
            prediction=_UNKNOWN,
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
                sent = self._crossing(origin)
                strategies.append(Strategy(outputs=(sent,), operands=(sent,)))
                continue
            received = node.op != self.part.nodes[origin.node].op
            if received or (number in program.input_by_node and origin.output):
                strategies.append(Strategy(outputs=(self._crossing(origin),), operands=()))
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

    def _require_sums(self, stage: StageProgram, decision: Decision) -> None:
        """What comes from another stage is whole, or cut, but not a pending sum."""
        program = stage.program
        received = {
            number
            for number, origin in enumerate(stage.origin)
            if origin is not None and program.nodes[number].op != self.part.nodes[origin.node].op
        }
        for number, strategy in enumerate(decision.strategies):
            for value, read in zip(program.operands(number), strategy.operands, strict=True):
                if value.node in received and any(map(is_partial, read)):
                    node = program.nodes[number]
                    raise InputError(
                        need="stages that begin with what is summed up",
                        got=f"{node.op} in {node.scope or 'the loss'}, which reads summands",
                        hint="cut the stages elsewhere",
                    )

    def _crossing(self, value: Value) -> Sharding:
        """In which sharding a value travels from stage to stage."""
        made = self.decision.strategies[value.node].outputs[value.output]
        phases = (Phase.FORWARD, Phase.BACKWARD, Phase.UPDATE)
        hubs = (self.decision.hubs.get((value, phase)) for phase in phases)
        wanted = (
            self.decision.strategies[reader].operands[position]
            for reader, position in self.part.users[value.node]
            if self.part.operands(reader)[position] == value
        )
        whole = (-1,) * self.mesh.num_axes
        choices = (*(hub for hub in hubs if hub is not None), made, *wanted, whole)
        return next(s for s in choices if not any(map(is_partial, s)))
