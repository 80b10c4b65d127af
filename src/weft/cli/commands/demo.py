"""`weft demo`: plan and run a small GPT on this machine, and show what came out."""

from __future__ import annotations

import argparse
from pathlib import Path

from weft.cli.command import Command
from weft.cli.commands.options import writable_file
from weft.cli.console import Console
from weft.core.errors import FileError, InputError
from weft.core.units import format_seconds
from weft.report.demo_page import demo_page, demo_sentence
from weft.report.loss import compare_losses
from weft.report.page import write_page
from weft.report.plan_page import typical_step_s
from weft.report.plan_summary import format_share, plan_plain
from weft.workflow.demo import DemoResult, find_demo_recipe, run_demo
from weft.workflow.planned import explain_plan, timeline_of
from weft.workflow.recipe import load_workload

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=writable_file,
        default=Path("demo.html"),
        help="the page",
    )
    parser.add_argument(
        "--folder", metavar="DIR", type=Path, default=Path("demo_output"), help="everything else"
    )
    parser.add_argument("--recipe", metavar="RECIPE", help="another workload than the small GPT")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="steps to train (20)")


def _execute(args: argparse.Namespace, console: Console) -> None:
    recipe = _checked_recipe(args)
    with console.progress() as progress:
        result = run_demo(recipe, args.folder, steps=args.steps, progress=progress)
    explanation = explain_plan(result.planned)
    console.line(explanation)
    console.line(_measured_line(result))
    console.line(demo_sentence(result.planned.plan, result.records))
    planned = result.planned
    page = demo_page(
        planned.plan,
        planned.program,
        planned.machine,
        timeline_of(planned),
        explanation=explanation,
        records=result.records,
        sources=result.files,
    )
    write_page(page, args.output)
    console.line(f"wrote {args.output}, a page to open in any browser")
    console.result(_plain(result))


def _checked_recipe(args: argparse.Namespace) -> str:
    """The recipe to train; whatever can be refused is refused before a minute of measuring."""
    if args.steps < 1:
        raise InputError(
            need="at least one step to train",
            got=f"--steps {args.steps}",
            hint="leave it out for 20",
        )
    try:
        args.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            need="a folder for what the demo makes",
            got=f"{args.folder}: {error.strerror}",
            hint="name another one with --folder",
        ) from error
    recipe = args.recipe or find_demo_recipe()
    load_workload(recipe)
    return recipe


def _measured_line(result: DemoResult) -> str:
    predicted_s = result.planned.plan.prediction.step_s
    measured_s = typical_step_s(result.records)
    error = format_share(abs(predicted_s / measured_s - 1))
    return (
        f"  step      {format_seconds(predicted_s)} predicted,"
        f" {format_seconds(measured_s)} measured ({error} apart)"
    )


def _plain(result: DemoResult) -> dict[str, object]:
    losses = compare_losses(result.records)
    return {
        **plan_plain(result.planned.plan),
        "measured_step_s": typical_step_s(result.records),
        "steps": losses.steps,
        "largest_relative_loss_difference": losses.relative,
    }


COMMAND = Command(
    name="demo",
    summary="plan and run a small GPT on this machine, and show what came out",
    example="example: weft demo",
    add_arguments=_add_arguments,
    execute=_execute,
)
