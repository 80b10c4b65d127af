"""The page of the demo: a plan that ran, and that it computed what one process computes."""

from __future__ import annotations

from collections.abc import Sequence

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
    """What the demo found: equal losses, and predicted beside measured step time."""
    losses = compare_losses(records)
    measured_s = typical_step_s(records)
    predicted_s = plan.prediction.step_s
    return (
        f"{plan.program_name} on {plan.mesh.num_devices} ranks follows one process: the losses of"
        f" {losses.steps} steps differ by at most {losses.relative:.1e} relative;"
        f" a step takes {format_seconds(measured_s)}, predicted {format_seconds(predicted_s)}"
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
        records: steps of the split run ("step") and of one process ("reference").
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
            *measured_section(plan, records),
            *plan_sections(plan, program, machine, timeline, explanation),
        ),
        sources=(*plan_sources(plan), *sources),
        records=(Record(kind="plan", fields=plan_plain(plan)), *records),
    )


def _figures(plan: ParallelPlan, records: Sequence[Record]) -> tuple[Figure, ...]:
    measured_s = typical_step_s(records)
    losses = compare_losses(records)
    error = abs(plan.prediction.step_s / measured_s - 1)
    figures = [
        Figure(value=f"{losses.relative:.1e}", meaning="largest relative difference in loss"),
        Figure(value=format_seconds(measured_s), meaning="measured step"),
        Figure(value=format_seconds(plan.prediction.step_s), meaning="predicted step"),
        Figure(value=format_share(error), meaning="error of the prediction"),
        Figure(value=format_bytes(plan.prediction.peak_bytes), meaning="predicted peak of a rank"),
    ]
    return tuple(figures)


def _loss_section(plan: ParallelPlan, records: Sequence[Record]) -> Section:
    losses = compare_losses(records)
    split = f"{plan.mesh.num_devices} ranks"
    return Section(
        heading="The loss of the split run and of one process",
        text=f"The curves differ most in step {losses.step}, by {losses.relative:.1e} relative;"
        f" the largest absolute difference is {losses.difference:.1e}.",
        body=loss_plot(records, split=split),
    )
