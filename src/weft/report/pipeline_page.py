"""The page of a pipeline: its schedule as a picture, its stages in rows."""

from __future__ import annotations

from collections.abc import Sequence

from weft.core.records import Record
from weft.core.units import format_bytes, format_seconds
from weft.parallel.pipeline.plan import PipelinePlan
from weft.report.page import Figure, Page, Section, html_table
from weft.report.pipeline_measured import rank_figures, rank_section
from weft.report.pipeline_summary import pipeline_alternatives, pipeline_sentence, stage_table
from weft.report.plan_page import measured_section
from weft.report.plan_summary import format_share
from weft.report.plot.schedule import schedule_plot

__all__ = ["pipeline_page"]


def pipeline_page(
    plan: PipelinePlan,
    source: str,
    records: Sequence[Record] = (),
    measured_in: str = "",
) -> Page:
    """What `weft show --html` writes of a pipeline.

    Args:
        plan: the decision.
        source: where it was read from.
        records: what was measured when the plan ran.
        measured_in: where those were read from.
    """
    p = plan.prediction
    peak, limit = map(format_bytes, plan.tightest_bytes)
    text = (
        "Each lane is a group of devices, each block its work on one micro-batch; where a lane is "
        f"empty, the group waits. Around it, {format_seconds(p.step_s - p.pipeline_s)} go to what "
        "happens once a step: casts of weights, reductions of gradients, the update."
    )
    return Page(
        title=f"{plan.program_name}: pipeline",
        kicker="A plan of a pipeline",
        sentence=pipeline_sentence(plan) + ".",
        figures=(
            Figure(value=format_seconds(p.step_s), meaning="a step, predicted"),
            Figure(value=format_share(p.bubble), meaning="of the schedule groups wait"),
            Figure(
                value=peak,
                meaning=f"at most on a device, {'within' if plan.fits else 'MORE THAN'} {limit}",
            ),
        ),
        picture=Section(heading="Schedule", text=text, body=schedule_plot(plan.time)),
        sections=(
            *measured_section(plan, records),
            *rank_section(rank_figures(records)),
            Section(heading="Stages", body=html_table(stage_table(plan))),
            *_compared(plan),
        ),
        sources=(("plan", source), *([("measurements", measured_in)] if measured_in else [])),
        records=tuple(records),
    )


def _compared(plan: PipelinePlan) -> tuple[Section, ...]:
    """What lost, if anything was compared."""
    if not plan.alternatives:
        return ()
    text = (
        "Where it says so, a step was put together from pieces that were simulated by themselves."
    )
    body = html_table(pipeline_alternatives(plan))
    return (Section(heading="What it was compared with", text=text, body=body),)
