"""The page of a plan: what was decided, what it will cost and why others lost."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from weft.core.errors import InputError
from weft.core.records import Record
from weft.core.units import format_bytes, format_seconds
from weft.cost.timeline import Stream, Timeline
from weft.machine.model import Machine
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.placement import Sharding, format_sharding, is_partial
from weft.parallel.plan import Level, ParallelPlan
from weft.program.graph import Program
from weft.report.machine_table import describe_machine
from weft.report.markup import Markup, join, tag
from weft.report.page import Figure, Page, Section, html_table
from weft.report.placements import TensorRow, activation_rows, axis_names, parameter_rows
from weft.report.plan_summary import (
    alternatives_table,
    fits,
    format_share,
    plan_plain,
    plan_sentence,
    prediction_table,
)
from weft.report.plot import Bar, bar_plot, memory_plot, mesh_plot, timeline_plot
from weft.report.plot.scale import second_ticks

__all__ = [
    "measured_section",
    "measured_steps",
    "plan_page",
    "plan_sections",
    "plan_sources",
    "sharding_tags",
    "timeline_section",
    "typical_step_s",
]


def plan_page(
    plan: ParallelPlan,
    program: Program,
    machine: Machine,
    timeline: Timeline,
    *,
    explanation: str = "",
    records: Sequence[Record] = (),
    sources: Sequence[tuple[str, str]] = (),
) -> Page:
    """The page of a plan.

    Args:
        plan, program, machine: the decision and what it is about.
        timeline: the simulated step.
        explanation: the plan in words.
        records: what was measured when the plan ran; those of kind "step" are compared with
            the prediction.
        sources: files that the numbers come from, as (what, where).
    """
    own = Record(kind="plan", fields=plan_plain(plan))
    return Page(
        title=f"{plan.program_name} on {plan.machine_name}",
        kicker=f"weft plan for {describe_machine(machine)}",
        sentence=plan_sentence(plan),
        figures=_figures(plan),
        picture=timeline_section(timeline),
        sections=(
            *measured_section(plan, records),
            *plan_sections(plan, program, machine, timeline, explanation),
        ),
        sources=(*plan_sources(plan), *sources),
        records=(own, *records),
    )


def plan_sections(
    plan: ParallelPlan,
    program: Program,
    machine: Machine,
    timeline: Timeline,
    explanation: str = "",
) -> tuple[Section, ...]:
    """The plan itself: comparison, mesh, placements, memory, words."""
    return (
        *_comparison_section(plan),
        _mesh_section(plan, program, machine),
        *_placement_sections(plan, program),
        _memory_section(plan, timeline),
        Section(
            heading="The prediction in numbers",
            body=html_table(prediction_table(plan, machine)),
        ),
        *_words_section(plan, explanation),
    )


def plan_sources(plan: ParallelPlan) -> tuple[tuple[str, str], ...]:
    """What a plan's numbers are about, by digest."""
    return (
        ("program", f"{plan.program_name}, digest {plan.program_digest}"),
        ("machine", f"{plan.machine_name}, digest {plan.machine_digest}"),
        ("planner", f"{plan.planner}, level {plan.level.value}"),
    )


def timeline_section(timeline: Timeline) -> Section:
    """The step as the simulator sees it."""
    if timeline.exposed_s > 0:
        text = (
            f"For {format_seconds(timeline.exposed_s)} of {format_seconds(timeline.step_s)}"
            " the device only communicates."
        )
    elif any(event.stream is Stream.COMMUNICATION for event in timeline.events):
        text = "Computation hides all communication."
    else:
        text = "The device computes and never communicates."
    return Section(
        heading="One step of one device, simulated", text=text, body=timeline_plot(timeline)
    )


def _figures(plan: ParallelPlan) -> tuple[Figure, ...]:
    p = plan.prediction
    peak = "peak memory of a device" + ("" if fits(plan) else ", which does not fit")
    figures = [
        Figure(value=format_seconds(p.step_s), meaning="predicted step"),
        Figure(value=format_bytes(p.peak_bytes), meaning=peak),
    ]
    if p.communication_s > 0:
        hidden = format_share(1 - p.exposed_s / p.communication_s)
        figures.append(Figure(value=hidden, meaning="of communication hidden"))
    else:
        figures.append(Figure(value="none", meaning="communication"))
    losers = [a.step_s for a in plan.alternatives if a.fits]
    if losers and p.step_s > 0:
        figures.append(_lead(plan, min(losers) / p.step_s))
    if p.bound_s > 0:
        meaning = "at most, from the planner's objective to the least possible on this mesh"
        figures.append(Figure(value=format_share(p.gap), meaning=meaning))
    return tuple(figures)


def _lead(plan: ParallelPlan, ratio: float) -> Figure:
    """How far a plan leads the next best one, and whether the search may claim it."""
    value = f"{ratio:.2f}x"
    faster = ratio > 1 and value != "1.00x"
    meaning = f"{'faster than' if faster else 'as fast as'} the next best plan"
    searched = plan.level is not Level.EXPERT
    if not searched or plan.prediction.bound_s == 0:
        meaning += "; this one is written by hand"
        meaning += ", the search found nothing faster" if searched else ""
    return Figure(value=value, meaning=meaning)


def measured_section(
    plan: ParallelPlan | PipelinePlan, records: Sequence[Record]
) -> tuple[Section, ...]:
    """Predicted beside measured step time; nothing where nothing was measured."""
    times_s = measured_steps(records)
    if not times_s:
        return ()
    typical_s = typical_step_s(records)
    predicted_s = plan.prediction.step_s
    error = predicted_s / typical_s - 1
    bars = (
        Bar(name="predicted", value=predicted_s, text=format_seconds(predicted_s), style="fill-1"),
        Bar(name="measured", value=typical_s, text=format_seconds(typical_s), style="fill-2"),
    )
    ticks = second_ticks(0.0, max(predicted_s, typical_s))
    how = "above" if error > 0 else "below"
    text = (
        f"The prediction is {format_share(abs(error))} {how} the median of"
        f" {len(times_s)} measured steps."
    )
    plot = bar_plot(bars, ticks, title="Predicted and measured step time", x_title="step")
    return (Section(heading="Predicted beside measured", text=text, body=plot),)


def measured_steps(records: Sequence[Record], kind: str = "step") -> list[float]:
    """Measured step times, without the first step, which pays for warming up [s].

    Args:
        records: what was measured.
        kind: of the records to look at: "step" for those of a plan, "reference" for one process.
    """
    times = [r.fields.get("step_s") for r in records if r.kind == kind]
    numbers = [float(t) for t in times if isinstance(t, int | float)]
    return numbers[1:] if len(numbers) > 1 else numbers


def typical_step_s(records: Sequence[Record], kind: str = "step") -> float:
    """Median of the measured step times [s]; see `measured_steps` for the arguments.

    Raises:
        InputError: no step was measured.
    """
    times_s = measured_steps(records, kind)
    if not times_s:
        raise InputError(
            need=f"records of kind {kind} that say how long a step took",
            got="none",
            hint="`weft run --records FILE` writes them",
        )
    return statistics.median(times_s)


def _comparison_section(plan: ParallelPlan) -> tuple[Section, ...]:
    if not plan.alternatives:
        return ()
    chosen_s = plan.prediction.step_s
    rivals = sorted(plan.alternatives, key=lambda a: (not a.fits, a.step_s))
    bars = [Bar(name="this plan", value=chosen_s, text=format_seconds(chosen_s), style="fill-1")]
    bars += [
        Bar(
            name=a.name,
            value=a.step_s,
            text=format_seconds(a.step_s) + ("" if a.fits else ", does not fit"),
            style="fill-2" if a.fits else "fill-3",
        )
        for a in rivals
    ]
    ticks = second_ticks(0.0, max(bar.value for bar in bars))
    plot = bar_plot(bars, ticks, title="Step time of the compared plans", x_title="step")
    table = html_table(alternatives_table(plan), chosen=(0,))
    text = "Plans that experts write by hand and the best of other meshes, by the same simulator."
    return (Section(heading="Why this plan", text=text, body=join(plot, table)),)


def _mesh_section(plan: ParallelPlan, program: Program, machine: Machine) -> Section:
    names = axis_names(program, plan)
    shape = " x ".join(f"{n} = {s}" for n, s in zip(names, plan.mesh.shape, strict=True))
    if not plan.mesh.is_even:
        shape += f", in parts as {plan.mesh}"
    per_node = machine.groups[0].devices_per_node
    text = f"{shape}. Each square is a device with its rank. {_order(plan, names[-1], per_node)}"
    return Section(heading="The mesh", text=text, body=mesh_plot(plan.mesh, names, per_node))


def _order(plan: ParallelPlan, last: str, per_node: int) -> str:
    """How ranks are counted and which of them share a node."""
    devices = plan.mesh.num_devices
    counted = f"Ranks are counted along the last axis ({last}) first"
    if devices <= per_node:
        return f"{counted}; all of them are in one node."
    first, second = _span(0, per_node), _span(per_node, min(2 * per_node, devices))
    more = " and so on" if devices > 2 * per_node else ""
    return f"{counted} and fill node by node: node 0 has {first}, node 1 has {second}{more}."


def _span(start: int, end: int) -> str:
    return f"{start} to {end - 1}" if end - start > 1 else str(start)


def _placement_sections(plan: ParallelPlan, program: Program) -> tuple[Section, ...]:
    names = axis_names(program, plan)
    return (
        Section(
            heading="Where the parameters lie",
            text="One word for each mesh axis: S0 cuts dim 0, R keeps a whole copy, P holds a"
            " summand. Where a weight is read in another way than it is kept, it is gathered"
            " first.",
            body=_tensor_table(parameter_rows(program, plan), names, with_reads=True),
        ),
        Section(
            heading="Where the activations lie",
            body=_tensor_table(activation_rows(program, plan), names, with_reads=False),
        ),
    )


def _tensor_table(rows: Sequence[TensorRow], names: tuple[str, ...], *, with_reads: bool) -> Markup:
    axes = " x ".join(names)
    columns = ("tensor", "count", "type", f"kept ({axes})", "read as", "on a device")
    if not with_reads:
        columns = ("result", "count", "type", f"made ({axes})", "on a device")
    styles = {"count": "number", "on a device": "number"}
    head = tag("tr", *(tag("th", c, class_=styles.get(c)) for c in columns))
    body = (_tensor_line(row, with_reads=with_reads) for row in rows)
    table = tag("table", tag("thead", head), tag("tbody", *body))
    return tag("div", table, class_="scroll")


def _tensor_line(row: TensorRow, *, with_reads: bool) -> Markup:
    reads = [sharding_tags(s) for s in row.read] if row.read else [Markup("")]
    return tag(
        "tr",
        tag("td", tag("code", row.name)),
        tag("td", str(row.count), class_="number"),
        tag("td", tag("code", str(row.type))),
        tag("td", sharding_tags(row.stored)),
        tag("td", *reads) if with_reads else None,
        tag("td", format_bytes(row.local_bytes), class_="number"),
    )


def sharding_tags(sharding: Sharding) -> Markup:
    """A sharding as coloured words, one for each mesh axis."""
    words = format_sharding(sharding).split(",")
    return join(
        *(
            tag("code", word, class_=f"tag {_tag_style(placement)}")
            for word, placement in zip(words, sharding, strict=True)
        )
    )


def _tag_style(placement: int) -> str:
    if is_partial(placement):
        return "tag-sum"
    return "tag-cut" if placement >= 0 else "tag-whole"


def _memory_section(plan: ParallelPlan, timeline: Timeline) -> Section:
    plot = memory_plot(
        timeline,
        limit_bytes=plan.memory_limit_bytes,
        state_bytes=plan.prediction.state_bytes,
    )
    limit = plan.memory_limit_bytes
    text = f"The peak is {format_bytes(timeline.peak_bytes)}"
    text += f", {format_share(timeline.peak_bytes / limit)} of the limit" if limit else ""
    text += "." if fits(plan) else ": the plan does not fit."
    if plan.recompute:
        text += f" {len(plan.recompute)} forward operators are computed again to save memory."
    return Section(heading="Memory over the step", text=text, body=plot)


def _words_section(plan: ParallelPlan, explanation: str) -> tuple[Section, ...]:
    missing = (note for note in plan.notes if note not in explanation)
    lines = [text for text in (explanation, *missing) if text]
    if not lines:
        return ()
    return (Section(heading="The plan in words", body=tag("pre", "\n".join(lines))),)
