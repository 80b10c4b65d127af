"""What crosses between the stages of a pipeline: how it lies on both sides, and how long it takes.

A transfer takes as long as the device that has most to send or to take up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from weft.machine.model import Machine
from weft.parallel.messages import messages_s
from weft.parallel.pipeline.plan import PipelinePlan, StagedProgram
from weft.parallel.pipeline.stages import Parcel, StageProgram
from weft.parallel.placement import Sharding
from weft.parallel.plan import ParallelPlan
from weft.parallel.recompute import expand
from weft.parallel.transfer import Piece, pieces
from weft.program.graph import Phase
from weft.program.types import TensorType

__all__ = ["crossing_seconds", "layouts", "parcel_type"]


def layouts(
    staged: StagedProgram, plans: Sequence[ParallelPlan]
) -> Mapping[str, tuple[Sharding, Sharding]]:
    """Of each parcel by name, how it lies where it is sent and where it is taken up.

    Args:
        staged: a program, cut into stages.
        plans: of each stage.
    """
    known: dict[tuple[int, tuple[int, ...]], Sequence[int]] = {}
    held: dict[str, Sharding] = {}
    wanted: dict[str, Sharding] = {}
    for stage, first, decided in zip(staged.stages, staged.alike, plans, strict=True):
        key = (first, decided.recompute)
        place = known[key] = known.get(key) or _places(stage, decided)
        for number, node in enumerate(stage.program.nodes):
            if node.op == "send":
                held[str(node.args[1])] = decided.strategies[place[number]].outputs[0]
        for parcel in stage.receives:
            number = stage.program.input_by_name[parcel.name].node
            wanted[parcel.name] = decided.strategies[place[number]].outputs[0]
    return {name: (held[name], wanted[name]) for name in wanted}


def _places(stage: StageProgram, decided: ParallelPlan) -> Sequence[int]:
    """Number of each node in the program with recomputation; of a node and its clone, the first."""
    if not decided.recompute:
        return range(len(stage.program.nodes))
    found = [-1] * len(stage.program.nodes)
    for number, origin in enumerate(expand(stage.program, decided.recompute).origin):
        if found[origin] < 0:
            found[origin] = number
    return found


def parcel_type(parcel: Parcel, stages: Sequence[StageProgram]) -> TensorType:
    """Type of the whole tensor that a parcel is."""
    program = stages[parcel.target].program
    return program.nodes[program.input_by_name[parcel.name].node].outputs[0]


def crossing_seconds(
    plan: PipelinePlan, staged: StagedProgram, machine: Machine
) -> list[tuple[float, float]]:
    """Of each stage, how long what a micro-batch sends forward and back takes [s].

    Args:
        plan: of the stages.
        staged: the program, cut into them.
        machine: where it runs.
    """
    lies = layouts(staged, plan.plans)
    known: dict[object, tuple[Piece, ...]] = {}
    seconds: dict[tuple[object, ...], float] = {}

    def taking_s(stage: StageProgram, phase: Phase) -> float:
        sent: list[tuple[object, int, int, int]] = []
        for parcel in stage.sends:
            if parcel.phase is not phase or parcel.once:
                continue
            whole = parcel_type(parcel, staged.stages)
            source, target = plan.plans[parcel.source].mesh, plan.plans[parcel.target].mesh
            held, wanted = lies[parcel.name]
            key = (whole.shape, source, held, target, wanted)
            if key not in known:
                known[key] = pieces(whole.shape, (source, held), (target, wanted))
            first, second = (
                plan.ranks_of(number % plan.num_groups).start
                for number in (parcel.source, parcel.target)
            )
            sent.append((key, whole.dtype.num_bytes, first, second))
        all_of_it = tuple(sent)
        if all_of_it not in seconds:
            messages = [
                (first + p.source, second + p.target, p.num_elements * num_bytes)
                for key, num_bytes, first, second in sent
                for p in known[key]
            ]
            seconds[all_of_it] = messages_s(messages, machine)
        return seconds[all_of_it]

    return [
        (taking_s(stage, Phase.FORWARD), taking_s(stage, Phase.BACKWARD)) for stage in staged.stages
    ]
