"""`weft show`: a plan in words, as a page, as a trace."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from weft.cli.command import Command
from weft.cli.commands.options import writable_file
from weft.cli.console import Console
from weft.core.records import Record
from weft.report.page import write_page
from weft.report.pipeline_measured import rank_figures, rank_table
from weft.report.pipeline_page import pipeline_page
from weft.report.pipeline_summary import (
    pipeline_alternatives,
    pipeline_plain,
    pipeline_sentence,
    stage_table,
)
from weft.report.plan_page import measured_steps, plan_page
from weft.report.plan_summary import plan_plain, prediction_table
from weft.report.trace import write_pipeline_trace, write_trace
from weft.workflow.measurements import read_measurements
from weft.workflow.plan_file import open_pipeline, open_planned
from weft.workflow.planned import Planned, explain_plan, timeline_of

if TYPE_CHECKING:
    from weft.machine.model import Machine
    from weft.parallel.pipeline.plan import PipelinePlan
    from weft.program.graph import Program

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plan", metavar="PLAN", type=Path, help="a plan file")
    parser.add_argument("--html", metavar="FILE", type=writable_file, help="write a page")
    parser.add_argument("--trace", metavar="FILE", type=writable_file, help="write a Chrome trace")
    parser.add_argument("--records", metavar="FILE", type=Path, help="what a run measured")
    parser.add_argument(
        "--recipe",
        metavar="RECIPE",
        help="for a plan file without its program; the plan has to be for it",
    )
    parser.add_argument(
        "--machine",
        metavar="NAME",
        help="for a plan file without its machine; the plan has to be for it",
    )


def _execute(args: argparse.Namespace, console: Console) -> None:
    pipeline = open_pipeline(
        args.plan, program=lambda: _program(args), machine=lambda: _machine(args)
    )
    if pipeline is not None:
        _show_pipeline(args, pipeline, console)
        return
    planned = open_planned(args.plan, program=_program(args), machine=_machine(args))
    records = read_measurements(args.records, planned.plan) if args.records else ()
    explanation = explain_plan(planned)
    console.line(explanation)
    console.table(prediction_table(planned.plan, planned.machine))
    if args.html or args.trace:
        _draw(args, planned, explanation, records, console)
    console.result({**plan_plain(planned.plan), "measured_steps_s": measured_steps(records)})


def _show_pipeline(args: argparse.Namespace, plan: PipelinePlan, console: Console) -> None:
    console.line(pipeline_sentence(plan))
    console.table(stage_table(plan))
    if plan.alternatives:
        console.table(pipeline_alternatives(plan))
    for note in plan.notes:
        console.line(f"note: {note}")
    records = read_measurements(args.records, plan) if args.records else ()
    ranks = rank_figures(records)
    if ranks:
        console.table(rank_table(ranks))
    elif args.records:
        console.line(f"{args.records} has steps of this plan, and no run of it that ended")
    if args.html:
        measured_in = f"{args.records}, records of kind step and rank" if args.records else ""
        page = pipeline_page(plan, str(args.plan), records, measured_in)
        write_page(page, args.html)
        console.line(f"wrote {args.html}")
    if args.trace:
        write_pipeline_trace(plan, args.trace)
        console.line(f"wrote {args.trace}; open it at ui.perfetto.dev or chrome://tracing")
    measured = {"measured_steps_s": measured_steps(records), "ranks": [asdict(r) for r in ranks]}
    console.result({**pipeline_plain(plan), **measured})


def _draw(
    args: argparse.Namespace,
    planned: Planned,
    words: str,
    records: tuple[Record, ...],
    console: Console,
) -> None:
    timeline = timeline_of(planned)
    if args.html:
        sources = [("plan", str(args.plan))]
        if args.records:
            sources.append(("measurements", f"{args.records}, records of kind step"))
        page = plan_page(
            planned.plan,
            planned.program,
            planned.machine,
            timeline,
            explanation=words,
            records=records,
            sources=sources,
        )
        write_page(page, args.html)
        console.line(f"wrote {args.html}")
    if args.trace:
        title = f"{planned.program.name} on {planned.machine.name}"
        write_trace(timeline, args.trace, title=title)
        console.line(f"wrote {args.trace}; open it at ui.perfetto.dev or chrome://tracing")


def _program(args: argparse.Namespace) -> Program | None:
    if args.recipe is None:
        return None
    from weft.workflow.capture_recipe import capture_recipe

    return capture_recipe(args.recipe).program


def _machine(args: argparse.Namespace) -> Machine | None:
    if args.machine is None:
        return None
    from weft.machine import load_machine

    return load_machine(args.machine)


COMMAND = Command(
    name="show",
    summary="show a plan in words, as a page or as a trace",
    example="example: weft show plan.json --html plan.html --trace plan.trace.json",
    add_arguments=_add_arguments,
    execute=_execute,
)
