"""A pipeline in words: what each group does, what the step consists of, and what lost."""

from __future__ import annotations

from itertools import groupby

from weft.core.units import format_bytes, format_seconds
from weft.machine.meeting import device_of
from weft.machine.model import Machine
from weft.parallel.explanation import axis_roles
from weft.parallel.pipeline.plan import PipelinePlan, StagedProgram
from weft.parallel.pipeline.standing import ranks_in_words
from weft.parallel.placement import Mesh
from weft.parallel.validate import require_machine, require_program
from weft.parallel.wording import headline, labelled, lost
from weft.program.graph import Phase, Program

__all__ = ["explain_pipeline"]

_MOST_ALTERNATIVES = 4


def explain_pipeline(plan: PipelinePlan, program: Program, machine: Machine) -> str:
    """Say what a pipeline is and what it costs.

    Args:
        plan: made for this program and machine.
        program: as captured.
        machine: where it runs.

    Returns:
        Lines of text, the first of which says the result.

    Raises:
        MismatchError: the plan was made for another program or another machine.
    """
    require_program(plan, program)
    require_machine(plan, machine)
    staged = StagedProgram(program, plan.micro_batches, plan.cut)
    named = plan.alternatives[:_MOST_ALTERNATIVES]
    rows = [
        ("pipeline", _shape(plan)),
        *(("groups", text) for text in _standing(plan, machine)),
        ("time", _time(plan)),
        *(("stages", text) for text in _stages(plan, staged)),
        *(("grid", text) for text in _grid(plan, staged)),
        ("memory", _memory(plan)),
        *(("why not", lost(other, plan.prediction.step_s)) for other in named),
        *(("note", note) for note in plan.notes),
    ]
    p = plan.prediction
    return labelled(headline(plan.program_name, machine, p.step_s, *plan.tightest_bytes), rows)


def _shape(plan: PipelinePlan) -> str:
    return (
        f"{plan.num_stages} stages on {plan.groups_in_words}, "
        f"{plan.micro_batches} micro-batches, {plan.schedule}"
    )


def _standing(plan: PipelinePlan, machine: Machine) -> list[str]:
    """On which ranks groups stand, where that is not the same for any order of them."""
    if plan.is_in_rank_order and machine.is_uniform:
        return []
    found: list[str] = []
    for group in range(plan.num_groups):
        ranks = plan.ranks_of(group)
        kinds = dict.fromkeys(device_of(machine, rank).name for rank in ranks)
        found.append(f"{group}: {ranks_in_words(ranks)}, {' and '.join(kinds)}")
    if not plan.is_in_rank_order:
        found[-1] += "; the order of groups is not that of ranks"
    return found


def _time(plan: PipelinePlan) -> str:
    p = plan.prediction
    text = (
        f"{format_seconds(p.pipeline_s)} of micro-batches, in which groups wait "
        f"{100 * p.bubble:.1f} %, and {format_seconds(p.step_s - p.pipeline_s)} of what happens "
        "once a step"
    )
    if p.bound_s > 0:
        text += f"; no plan of this shape takes less than {format_seconds(p.bound_s)}"
    return text


def _stages(plan: PipelinePlan, staged: StagedProgram) -> list[str]:
    """Stages that are alike in a line: where they are, what they recompute."""
    found: list[str] = []
    numbers = range(plan.num_stages)
    for alike, run in groupby(
        numbers, key=lambda s: (staged.alike[s], len(plan.plans[s].recompute))
    ):
        members = list(run)
        nodes = staged.stages[members[0]].program.nodes
        forward = (node for node in nodes if node.phase is Phase.FORWARD)
        named = [n.scope for n in forward if n.scope and n.op not in ("input", "send")]
        where = f"{named[0]} to {named[-1]}" if named else "the loss"
        busy = plan.prediction.stages[members[0]].busy_s
        again = f", {alike[1]} forward operators run again" if alike[1] else ""
        runs = plan.cut.num_runs(members[0])
        where += f" in {runs} runs beside other stages" if runs > 1 else ""
        which = f"{members[0]}" if len(members) == 1 else f"{members[0]} to {members[-1]}"
        first = "" if len(members) == 1 else "the first is "
        found.append(f"{which}: {first}{where}, {format_seconds(busy)} a micro-batch{again}")
    return found


def _grid(plan: PipelinePlan, staged: StagedProgram) -> list[str]:
    """What each axis of the grids cuts, in the stage in the middle of those cut alike."""
    on_grid: dict[tuple[int, Mesh], list[int]] = {}
    for stage, decided in enumerate(plan.plans):
        if decided.mesh.num_devices > 1:
            on_grid.setdefault((stage % plan.num_groups, decided.mesh), []).append(stage)
    alike: dict[object, list[tuple[int, tuple[dict[str, float], ...]]]] = {}
    for (_, mesh), stages in on_grid.items():
        middle = stages[len(stages) // 2]
        roles = axis_roles(plan.plans[middle], staged.stages[middle].program)
        most = tuple(max(shares, key=shares.__getitem__, default="") for shares in roles)
        alike.setdefault((mesh, most), []).append((middle, roles))
    rows: list[str] = []
    for found in alike.values():
        stage, roles = found[len(found) // 2]
        rows += [
            f"axis {axis} of {size}: "
            + (", ".join(f"{role} {100 * s:.0f} %" for role, s in shares.items()) or "nothing")
            + f" of the products of stage {stage}"
            for axis, (size, shares) in enumerate(
                zip(plan.plans[stage].mesh.shape, roles, strict=True)
            )
        ]
    return rows


def _memory(plan: PipelinePlan) -> str:
    peaks = plan.prediction.group_peak_bytes
    text = (
        f"{format_bytes(min(peaks))} to {format_bytes(max(peaks))} on a device, by group; most in "
        f"group {peaks.index(max(peaks))}"
    )
    if plan.group_limits_bytes:
        peak, limit = map(format_bytes, plan.tightest_bytes)
        text += f", least room in group {plan.tightest_group}: {peak} of {limit}"
    return text
