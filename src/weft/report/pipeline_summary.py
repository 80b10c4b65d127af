"""A pipeline in words and rows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from weft.core.units import format_bytes, format_seconds
from weft.parallel.pipeline.plan import PipelinePlan, PipelinePrediction
from weft.parallel.pipeline.standing import ranks_in_words
from weft.report.plan_summary import compared, format_share
from weft.report.table import Table

__all__ = ["pipeline_alternatives", "pipeline_plain", "pipeline_sentence", "stage_table"]


def pipeline_sentence(plan: PipelinePlan) -> str:
    """What a pipeline is and costs, in a line."""
    p = plan.prediction
    peak, limit = map(format_bytes, plan.tightest_bytes)
    text = (
        f"{plan.program_name} on {plan.machine_name}: {format_seconds(p.step_s)} a step"
        f"{_gap(p)} in {_count(plan.num_stages, 'stage')} on {plan.groups_in_words}, "
        f"{plan.micro_batches} micro-batches, {plan.schedule}; groups wait "
        f"{format_share(p.bubble)} of the time; peak {peak} of {limit}"
    )
    return text + ("" if plan.fits else ", which does not fit")


def pipeline_alternatives(plan: PipelinePlan) -> Table:
    """This plan and what it was compared with, fastest first, those that fit before others."""
    p = plan.prediction
    return compared(plan.alternatives, p.step_s, p.peak_bytes)


def stage_table(plan: PipelinePlan) -> Table:
    """Each stage: where it is, how long it takes for a micro-batch, what its group needs."""
    p, time = plan.prediction, plan.time
    rows = [
        (
            str(stage),
            str(stage % plan.num_groups),
            ranks_in_words(plan.ranks_of(stage % plan.num_groups)),
            str(plan.plans[stage].mesh),
            format_seconds(p.stages[stage].forward_s),
            format_seconds(p.stages[stage].backward_s),
            format_share(time.waiting(stage % plan.num_groups)),
            format_bytes(p.group_peak_bytes[stage % plan.num_groups]),
        )
        for stage in range(plan.num_stages)
    ]
    columns = (
        *("stage", "group", "stands on", "grid", "forward", "backward"),
        *("group waits", "group's peak"),
    )
    return Table(columns=columns, rows=tuple(rows))


def pipeline_plain(plan: PipelinePlan) -> dict[str, Any]:
    """A pipeline's figures as JSON values."""
    p = plan.prediction
    return {
        "program": plan.program_name,
        "machine": plan.machine_name,
        "micro_batches": plan.micro_batches,
        "schedule": plan.schedule,
        "stages": plan.num_stages,
        "groups": plan.num_groups,
        "group_devices": list(plan.group_devices),
        "standing": list(plan.standing),
        "meshes": [list(stage.mesh.shape) for stage in plan.plans],
        "planner": plan.planner,
        "level": plan.level.value,
        "search_s": plan.search_s,
        "step_s": p.step_s,
        "bound_s": p.bound_s or None,
        "gap": p.gap if p.bound_s else None,
        "pipeline_s": p.pipeline_s,
        "bubble": p.bubble,
        "group_peak_bytes": list(p.group_peak_bytes),
        "group_limits_bytes": list(plan.limits_bytes),
        "fits": plan.fits,
        "stage_times": [asdict(stage) for stage in p.stages],
        "recomputed_nodes": [len(stage.recompute) for stage in plan.plans],
        "alternatives": [asdict(a) for a in plan.alternatives],
        "notes": list(plan.notes),
    }


def _gap(prediction: PipelinePrediction) -> str:
    bounded = prediction.bound_s > 0
    return f" (at most {format_share(prediction.gap)} over its bound)" if bounded else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number > 1 else ''}"
