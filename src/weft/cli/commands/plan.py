"""`weft plan`: find the fastest way to split a training step over a machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from weft.cli.command import Command
from weft.cli.commands.options import (
    add_machine,
    add_pins,
    add_recipe,
    memory_limit,
    positive_seconds,
    read_machine,
    read_pins,
    writable_file,
)
from weft.cli.console import Console
from weft.core.units import format_seconds
from weft.report.pipeline_summary import (
    pipeline_alternatives,
    pipeline_plain,
    stage_table,
)
from weft.report.plan_summary import plan_plain
from weft.workflow.plan_file import save_pipeline, save_planned
from weft.workflow.plan_model import Learning, plan_model
from weft.workflow.planned import PlannedPipeline, explain_plan

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_machine(parser)
    parser.add_argument("-o", "--output", metavar="FILE", type=writable_file, help="write the plan")
    parser.add_argument(
        "--level", choices=("fast", "best"), default="fast", help="how hard to look (fast)"
    )
    parser.add_argument(
        "--planner",
        choices=("exact", "dqn", "mcts"),
        default="exact",
        help="who looks: an exact search, an agent that learns from simulated steps, or a tree "
        "search over homes of operators, layers to cut and pipelines (exact)",
    )
    learning = parser.add_argument_group("with --planner dqn")
    learning.add_argument(
        "--resume",
        metavar="FILE",
        type=writable_file,
        help="go on with the search in this file if it is there, and keep it there meanwhile",
    )
    learning.add_argument(
        "--warm-start", metavar="PLAN", type=Path, help="begin with a plan of one stage"
    )
    learning.add_argument(
        "--episodes",
        metavar="N",
        type=int,
        help="play so many; with 0 nothing is learnt, what the trained policy plans is simulated",
    )
    add_pins(parser)
    parser.add_argument(
        "--one-stage", action="store_true", help="look at plans of one stage only, no pipelines"
    )
    parser.add_argument(
        "--time-limit",
        type=positive_seconds,
        default=float("inf"),
        metavar="SECONDS",
        help="stop looking for better plans after this time (none)",
    )


def _execute(args: argparse.Namespace, console: Console) -> None:
    from weft.parallel.plan import Level

    machine, limit, pins = read_machine(args), memory_limit(args), read_pins(args)
    with console.progress() as progress:
        planned = plan_model(
            args.recipe,
            machine,
            level=Level(args.level),
            planner=args.planner,
            memory_limit_bytes=0.0 if limit is None else limit,
            max_stages=1 if args.one_stage else 0,
            time_limit_s=args.time_limit,
            pins=pins,
            learning=_learning(args),
            progress=progress,
        )
    console.line(explain_plan(planned))
    if isinstance(planned, PlannedPipeline):
        console.table(stage_table(planned.plan))
        console.table(pipeline_alternatives(planned.plan))
    capture, search = format_seconds(planned.capture_s), format_seconds(planned.plan.search_s)
    console.line(f"  took      {capture} to capture, {search} to search")
    if args.output is not None:
        if isinstance(planned, PlannedPipeline):
            save_pipeline(planned.plan, args.output)
        else:
            save_planned(planned, args.output)
        console.line(f"wrote {args.output}; look at it with `weft show {args.output}`")
    found = (
        pipeline_plain(planned.plan)
        if isinstance(planned, PlannedPipeline)
        else plan_plain(planned.plan)
    )
    console.result({**found, "capture_s": planned.capture_s})


def _learning(args: argparse.Namespace) -> Learning | None:
    resume = None if args.resume is None else Path(args.resume)
    asked = Learning(resume=resume, warm_start=args.warm_start, episodes=args.episodes)
    return None if asked == Learning() else asked


COMMAND = Command(
    name="plan",
    summary="find the fastest way to split a training step over a machine",
    example="example: weft plan recipes/llama3.py:llama3_8b --machine dgx-h100x8 -o plan.json",
    add_arguments=_add_arguments,
    execute=_execute,
)
