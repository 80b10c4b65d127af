"""A pipeline in words and rows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from weft.core.units import format_bytes, format_seconds
from weft.parallel.pipeline.plan import PipelinePlan
from weft.report.plan_summary import format_share
from weft.report.table import Table

__all__ = ["pipeline_plain", "pipeline_sentence", "stage_table"]


def pipeline_sentence(plan: PipelinePlan) -> str:
    """What a pipeline is and costs, in a line."""
    p, limit = plan.prediction, plan.memory_limit_bytes
    text = (
        f"{plan.program_name} on {plan.machine_name}: {format_seconds(p.step_s)} a step in "
        f"{plan.num_stages} stages on {plan.num_groups} groups of {_devices(plan)}, "
        f"{plan.micro_batches} micro-batches, {plan.schedule}; groups wait "
        f"{format_share(p.bubble)} of the time; peak {format_bytes(p.peak_bytes)} of "
        f"{format_bytes(limit)}"
    )
    return text + (", which does not fit" if p.peak_bytes > limit else "")


def stage_table(plan: PipelinePlan) -> Table:
    """Each stage: where it is, how long it takes for a micro-batch, what its group needs."""
    p, time = plan.prediction, plan.time
    rows = [
        (
            str(stage),
            str(stage % plan.num_groups),
            format_seconds(p.stages[stage].forward_s),
            format_seconds(p.stages[stage].inputs_s + p.stages[stage].weights_s),
            format_share(time.waiting(stage % plan.num_groups)),
            format_bytes(p.group_peak_bytes[stage % plan.num_groups]),
        )
        for stage in range(plan.num_stages)
    ]
    columns = ("stage", "group", "forward", "backward", "group waits", "group's peak")
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
        "mesh": list(plan.mesh.shape),
        "step_s": p.step_s,
        "pipeline_s": p.pipeline_s,
        "bubble": p.bubble,
        "group_peak_bytes": list(p.group_peak_bytes),
        "fits": p.peak_bytes <= plan.memory_limit_bytes,
        "stage_times": [asdict(stage) for stage in p.stages],
    }


def _devices(plan: PipelinePlan) -> str:
    return "one device" if plan.mesh.num_devices == 1 else f"{plan.mesh} devices"
