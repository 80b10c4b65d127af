"""A plan in one sentence, in one JSON object and in a table of what it beat."""

from __future__ import annotations

from collections.abc import Sequence

from weft.core.units import format_bytes, format_seconds
from weft.machine.model import Machine
from weft.parallel.plan import Alternative, ParallelPlan, Prediction
from weft.report.table import Table

__all__ = [
    "alternatives_table",
    "compared",
    "fits",
    "format_share",
    "plan_plain",
    "plan_sentence",
    "prediction_table",
]


def format_share(share: float) -> str:
    """A share as a percentage with two significant digits: 0.021 is "2.1 %".

    What is below a hundredth of a percent is written so; rounding errors are zero.

    Example:
        >>> format_share(0.021), format_share(0.96), format_share(3e-6), format_share(-1e-15)
        ('2.1 %', '96 %', '<0.01 %', '0 %')
    """
    if abs(share) < 1e-9:
        return "0 %"
    if abs(share) < 1e-4:
        return "<0.01 %"
    return f"{100 * share:.2g} %" if abs(share) < 0.995 else f"{100 * share:.0f} %"


def fits(plan: ParallelPlan) -> bool:
    """Whether the peak is within the limit; a plan without a limit always fits."""
    limit = plan.memory_limit_bytes
    return not limit or plan.prediction.peak_bytes <= limit


def plan_sentence(plan: ParallelPlan) -> str:
    """The result in one line: step time, gap of the search where known, peak memory."""
    p = plan.prediction
    parts = [f"{format_seconds(p.step_s)} a step"]
    if p.bound_s > 0:
        parts[0] += f" (search gap {format_share(p.gap)})"
    memory = f"peak {format_bytes(p.peak_bytes)}"
    if plan.memory_limit_bytes:
        memory += f" of {format_bytes(plan.memory_limit_bytes)}"
        memory += "" if fits(plan) else ", which does not fit"
    devices = plan.mesh.num_devices
    where = f"{plan.machine_name} ({devices} device{'s' if devices > 1 else ''})"
    return f"{plan.program_name} on {where}: {parts[0]}, {memory}"


def plan_plain(plan: ParallelPlan) -> dict[str, object]:
    """What a plan decides and predicts, as JSON values; strategies stay in the plan file."""
    return {
        "program": plan.program_name,
        "program_digest": plan.program_digest,
        "machine": plan.machine_name,
        "machine_digest": plan.machine_digest,
        "mesh": list(plan.mesh.shape),
        "planner": plan.planner,
        "level": plan.level.value,
        "memory_limit_bytes": plan.memory_limit_bytes,
        "fits": fits(plan),
        "recomputed_nodes": len(plan.recompute),
        "copies": len(plan.copies),
        "search_s": plan.search_s,
        **prediction_plain(plan.prediction),
        "alternatives": [_alternative_plain(a) for a in plan.alternatives],
        "notes": list(plan.notes),
    }


def prediction_plain(prediction: Prediction) -> dict[str, object]:
    """A prediction as JSON values; what is not known of the search is null."""
    bounded = prediction.bound_s > 0
    return {
        "step_s": prediction.step_s,
        "compute_s": prediction.compute_s,
        "communication_s": prediction.communication_s,
        "exposed_s": prediction.exposed_s,
        "peak_bytes": prediction.peak_bytes,
        "state_bytes": prediction.state_bytes,
        "objective_s": prediction.objective_s or None,
        "bound_s": prediction.bound_s if bounded else None,
        "gap": prediction.gap if bounded else None,
    }


def _alternative_plain(alternative: Alternative) -> dict[str, object]:
    return {
        "name": alternative.name,
        "step_s": alternative.step_s,
        "peak_bytes": alternative.peak_bytes,
        "fits": alternative.fits,
        "note": alternative.note,
    }


def prediction_table(plan: ParallelPlan, machine: Machine | None = None) -> Table:
    """The prediction in rows, each with what it means."""
    p = plan.prediction
    hidden = p.communication_s - p.exposed_s
    share = f"; {format_share(hidden / p.communication_s)} is hidden" if p.communication_s else ""
    if hidden < 0:
        share = "; the device waits for others as well"
    limit = format_bytes(plan.memory_limit_bytes) if plan.memory_limit_bytes else "no limit"
    peak = f"on one device, limit {limit}" if fits(plan) else f"DOES NOT FIT: the limit is {limit}"
    rows = [
        ("step", format_seconds(p.step_s), "one training step"),
        ("computation", format_seconds(p.compute_s), "sum over the operators of one device"),
        ("communication", format_seconds(p.communication_s), "sum over the collectives"),
        ("exposed", format_seconds(p.exposed_s), f"not hidden by computation{share}"),
        ("peak memory", format_bytes(p.peak_bytes), peak),
        ("state", format_bytes(p.state_bytes), "parameters, buffers and optimizer state"),
    ]
    if p.bound_s > 0:
        meaning = (
            "what the planner made small: computation, and the communication that it expected to"
            f" wait for; at most {format_share(p.gap)} above the least possible on this mesh"
        )
        rows.append(("objective", format_seconds(p.objective_s), meaning))
    if machine is not None and plan.machine_digest != machine.digest:
        rows.append(("machine", machine.name, "not the one that the plan was made for"))
    return Table(columns=("prediction", "value", "meaning"), rows=tuple(rows))


def alternatives_table(plan: ParallelPlan) -> Table:
    """This plan and what it was compared with, fastest first, those that fit before others."""
    return compared(plan.alternatives, plan.prediction.step_s, plan.prediction.peak_bytes)


def compared(alternatives: Sequence[Alternative], step_s: float, peak_bytes: float) -> Table:
    """A plan and what it was compared with, as `alternatives_table` shows it."""
    rows = [("this plan", format_seconds(step_s), "1.00x", format_bytes(peak_bytes), "")]
    for a in sorted(alternatives, key=lambda a: (not a.fits, a.step_s)):
        ratio = f"{a.step_s / step_s:.2f}x" if step_s > 0 else ""
        note = a.note if a.fits else f"does not fit. {a.note}".strip()
        rows.append((a.name, format_seconds(a.step_s), ratio, format_bytes(a.peak_bytes), note))
    return Table(columns=("plan", "step", "against this", "peak", "note"), rows=tuple(rows))
