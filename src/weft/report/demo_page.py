"""The page of the demo: a plan that ran, and that it computed what one process computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from weft.core.records import Record
from weft.core.units import format_bytes, format_seconds
from weft.cost.timeline import Timeline
from weft.machine.model import Machine
from weft.parallel.plan import ParallelPlan
from weft.program.graph import Program
from weft.report.loss import compare_losses, loss_plot
from weft.report.machine_table import describe_machine
from weft.report.page import Figure, Page, Section
from weft.report.plan_page import (
    measured_section,
    plan_sections,
    plan_sources,
    timeline_section,
    typical_step_s,
)
from weft.report.plan_summary import format_share, plan_plain

__all__ = ["demo_page", "demo_sentence"]


def demo_sentence(plan: ParallelPlan, records: Sequence[Record]) -> str:
    """What the demo found: equal losses, and what a step takes, predicted and on one process."""
    losses = compare_losses(records)
    measured_s, alone_s = typical_step_s(records), typical_step_s(records, "reference")
    predicted_s = plan.prediction.step_s
    return (
        f"{plan.program_name} on {plan.mesh.num_devices} ranks follows one process: the losses of"
        f" {losses.steps} steps differ by at most {losses.relative:.1e} relative;"
        f" a step takes {format_seconds(measured_s)}, predicted {format_seconds(predicted_s)},"
        f" and {format_seconds(alone_s)} on one process ({alone_s / measured_s:.2f}x)"
    )


def demo_page(
    plan: ParallelPlan,
    program: Program,
    machine: Machine,
    timeline: Timeline,
    *,
    explanation: str,
    records: Sequence[Record],
    sources: Sequence[tuple[str, str]],
) -> Page:
    """The page of the demo.

    Args:
        plan, program, machine: the decision and what it is about.
        timeline: the simulated step.
        explanation: the plan in words.
        records: steps of the split run ("step") and of one process ("reference"), and how busy
            the host was before ("host").
        sources: files that the numbers come from, as (what, where).
    """
    return Page(
        title="weft demo",
        kicker=f"weft demo on {describe_machine(machine)}",
        sentence=demo_sentence(plan, records),
        figures=_figures(plan, records),
        picture=_loss_section(plan, records),
        sections=(
            timeline_section(timeline),
            *_measured_section(plan, records),
            *plan_sections(plan, program, machine, timeline, explanation),
        ),
        sources=(*plan_sources(plan), *sources),
        records=(Record(kind="plan", fields=plan_plain(plan)), *records),
    )


def _figures(plan: ParallelPlan, records: Sequence[Record]) -> tuple[Figure, ...]:
    measured_s, alone_s = typical_step_s(records), typical_step_s(records, "reference")
    losses = compare_losses(records)
    error = plan.prediction.step_s / measured_s - 1
    sign = "" if format_share(error) == "0 %" else "+" if error > 0 else "\u2212"
    side = "high" if error > 0 else "low"
    off = f"error of the prediction{f', which is too {side}' if sign else ''}"
    figures = [
        Figure(value=f"{losses.relative:.1e}", meaning="largest relative difference in loss"),
        Figure(value=format_seconds(measured_s), meaning="measured step"),
        Figure(value=format_seconds(plan.prediction.step_s), meaning="predicted step"),
        Figure(value=sign + format_share(abs(error)), meaning=off),
        Figure(value=format_seconds(alone_s), meaning="measured step of one process, one thread"),
        Figure(value=f"{alone_s / measured_s:.2f}x", meaning="as fast as one process"),
        Figure(value=format_bytes(plan.prediction.peak_bytes), meaning="predicted peak of a rank"),
    ]
    return tuple(figures)


def _measured_section(plan: ParallelPlan, records: Sequence[Record]) -> tuple[Section, ...]:
    busy = _busy_note(records, plan.mesh.num_devices)
    return tuple(
        replace(section, text=f"{section.text} {busy}".rstrip())
        for section in measured_section(plan, records)
    )


def _busy_note(records: Sequence[Record], ranks: int) -> str:
    """A line where other programs kept the host busy before the run; nothing otherwise."""
    loads = [r.fields.get("load_1_minute") for r in records if r.kind == "host"]
    busy = [load for load in loads if isinstance(load, int | float) and load > ranks]
    if not busy:
        return ""
    return (
        f"The host was busy before the run (load average {busy[-1]:.1f} over one minute, for"
        f" {ranks} ranks), which makes predictions worse: run the demo again on an idle host."
    )


def _loss_section(plan: ParallelPlan, records: Sequence[Record]) -> Section:
    losses = compare_losses(records)
    split = f"{plan.mesh.num_devices} ranks"
    return Section(
        heading="The loss of the split run and of one process",
        text=f"The curves differ most in step {losses.step}, by {losses.relative:.1e} relative;"
        f" the largest absolute difference is {losses.difference:.1e}.",
        body=loss_plot(records, split=split),
    )
