"""`weft run`: train with a plan, one process a rank, under torchrun."""

from __future__ import annotations

import argparse
from pathlib import Path

from weft.cli.command import Command
from weft.cli.commands.options import add_recipe
from weft.cli.console import Console
from weft.core.units import format_seconds
from weft.workflow.run_plan import RunSettings, StepReport, run_plan

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument("--plan", metavar="FILE", type=Path, required=True, help="a plan file")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="steps in all (20)")
    parser.add_argument("--records", metavar="FILE", type=Path, help="write what is measured")
    parser.add_argument("--checkpoint", metavar="DIR", type=Path, help="keep checkpoints here")
    parser.add_argument(
        "--checkpoint-every", type=int, default=0, metavar="K", help="steps between checkpoints"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--compile", action="store_true", help="compile the step with Inductor")


def _execute(args: argparse.Namespace, console: Console) -> None:
    settings = RunSettings(
        recipe=args.recipe,
        plan=args.plan,
        steps=args.steps,
        records=args.records,
        checkpoint=args.checkpoint,
        checkpoint_every=args.checkpoint_every,
        resume=args.resume,
        compile=args.compile,
    )
    reports: list[StepReport] = []

    def show(report: StepReport) -> None:
        reports.append(report)
        took = format_seconds(report.step_s)
        console.line(f"step {report.step:>5}  loss {report.loss:.6f}  {took}")

    run_plan(settings, on_step=show)
    console.result(
        {
            "plan": str(args.plan),
            "steps": [{"step": r.step, "loss": r.loss, "step_s": r.step_s} for r in reports],
        }
    )


COMMAND = Command(
    name="run",
    summary="train with a plan; started by torchrun, one process a rank",
    example="example: torchrun --nproc-per-node 2 -m weft run recipes/gpt.py:gpt_small"
    " --plan plan.json",
    add_arguments=_add_arguments,
    execute=_execute,
)
