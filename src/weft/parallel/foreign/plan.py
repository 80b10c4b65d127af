"""A foreign plan completed, simulated, and written as an ordinary plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from weft.core.errors import InputError
from weft.core.files import read_text
from weft.machine.model import Machine
from weft.parallel.by_axes import candidate_by_axes
from weft.parallel.foreign.document import ForeignPlan, Stages, Target, foreign_from_json
from weft.parallel.foreign.pins import Names
from weft.parallel.greedy import greedy_axis
from weft.parallel.pinning import resolve
from weft.parallel.pipeline.cut import Cut
from weft.parallel.pipeline.expert import pipeline_of_stages
from weft.parallel.pipeline.microbatch import in_micro_batches
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.plan import ParallelPlan
from weft.parallel.propagate import Axis, AxisRules
from weft.parallel.recompute import RECOMPUTATIONS, expand
from weft.parallel.rules import RuleBook
from weft.parallel.zero import lasting_weights
from weft.program.graph import Phase, Program

__all__ = ["foreign_plan", "read_foreign"]

NAME = "placements given"


def read_foreign(path: Path) -> ForeignPlan:
    """Read the file of a foreign plan.

    Raises:
        FileError: it is missing, or no such file.
        InputError: an entry is malformed; names it.
    """
    text = read_text(path, "a file of placements", "see docs/guides/foreign_plans.md")
    try:
        return foreign_from_json(text)
    except InputError as error:
        raise error.within(str(path)) from error.__cause__


def foreign_plan(
    program: Program, machine: Machine, foreign: ForeignPlan
) -> ParallelPlan | PipelinePlan:
    """The plan that follows from the placements of a foreign one by the least movement.

    Args:
        program: one training step.
        machine: at least as many devices as the mesh has, times groups of a pipeline.
        foreign: what is given.

    Raises:
        InputError: an entry does not go with the program; names it. Or the mesh is too large.
        InfeasibleError: the placements do not keep a pin of the model's own code; names it.
    """
    stages = foreign.pipeline
    groups = 1 if stages is None else (len(stages.starts) + 1) // stages.chunks
    devices = groups * foreign.mesh.num_devices
    if devices > machine.num_devices:
        raise InputError(
            need=f"at most {machine.num_devices} devices, which is what {machine.name} has",
            got=f"{devices}: mesh {foreign.mesh} for each of {groups} groups",
            hint="take a larger machine, or give a smaller mesh",
        )
    Names(program, foreign).require_all()
    if stages is None:
        return _completed(program, machine, foreign)
    by_node = next((e for e in foreign.entries if e.target is Target.NODE), None)
    if by_node is not None:
        raise InputError(
            need="entries by module and input in a plan with a pipeline",
            got=by_node.where,
            hint="nodes are numbered anew in each stage; name the module instead",
        )
    return pipeline_of_stages(
        program,
        machine,
        cut=Cut.at(_first_nodes(in_micro_batches(program, stages.micro_batches), stages)),
        num_groups=groups,
        micro_batches=stages.micro_batches,
        schedule=stages.schedule,
        written=lambda stage: _completed(stage.program, machine, foreign),
    )


def _completed(program: Program, machine: Machine, foreign: ForeignPlan) -> ParallelPlan:
    names, book = Names(program, foreign), RuleBook(program)
    axes: list[AxisRules] = []
    gathered: set[int] = set()
    for number, size in enumerate(foreign.mesh.shape):
        pins = names.pins(number, Axis(program, size, axes, book))
        rules = greedy_axis(program, pins.pinned, size, axes, pins.gathered, book)
        axes.append(AxisRules(size=size, rules=rules))
        gathered |= pins.gathered
    expanded = expand(program, RECOMPUTATIONS[foreign.recompute](program))
    plan = candidate_by_axes(
        NAME,
        program,
        machine,
        axes,
        lasting=lasting_weights(program, gathered & names.lasting),
        expanded=expanded,
        pinning=resolve(program).through(expanded.origin, expanded.program),
        memory_limit_bytes=min(group.device.memory_bytes.value for group in machine.groups),
    ).plan
    return replace(plan, notes=(*plan.notes, "completed from placements of another system"))


def _first_nodes(part: Program, stages: Stages) -> tuple[int, ...]:
    """First node of each stage but the first."""
    found = [_first_node(part, path) for path in stages.starts]
    if list(found) != sorted(set(found)):
        raise InputError(
            need="pipeline, stages: module paths in the order in which they run",
            got=", ".join(stages.starts),
            hint="the first stage begins by itself; name where the others begin",
        )
    return tuple(found)


def _first_node(part: Program, path: str) -> int:
    for number, node in enumerate(part.nodes):
        inside = node.scope == path or node.scope.startswith(f"{path}.")
        if inside and node.phase is Phase.FORWARD and number not in part.input_by_node:
            return number
    modules = sorted({node.scope for node in part.nodes if node.scope})
    raise InputError(
        need=f"pipeline, stages: a module path of {part.name}",
        got=repr(path),
        hint=f"there is {', '.join(_spread(modules))}",
    )


def _spread(names: Sequence[str]) -> Sequence[str]:
    """A few of many names."""
    return names[:: max(1, len(names) // 6)][:6]
