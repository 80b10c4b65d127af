"""`weft run`: train with a plan, one process a rank, under torchrun."""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from weft.cli.command import Command
from weft.cli.commands.options import add_recipe, writable_file
from weft.cli.console import Console
from weft.core.units import format_bytes, format_seconds
from weft.workflow.run_plan import COMPILERS, RunSettings, run_recipe

if TYPE_CHECKING:
    from weft.runtime.train import Outcome, StepDone

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument("--plan", metavar="FILE", type=Path, required=True, help="a plan file")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="steps in all (20)")
    parser.add_argument(
        "--records", metavar="FILE", type=writable_file, help="write what is measured"
    )
    parser.add_argument("--checkpoint", metavar="DIR", type=Path, help="keep checkpoints here")
    parser.add_argument(
        "--checkpoint-every", type=int, default=0, metavar="K", help="steps between checkpoints"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--compile",
        choices=COMPILERS,
        help="compile the step: by Inductor with weft's kernels, or by Inductor alone",
    )


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

    def show(done: StepDone) -> None:
        took = format_seconds(done.step_s)
        console.line(f"step {done.step:>5}  loss {done.loss:.6f}  {took}")

    outcome = run_recipe(settings, on_step=show, tell=console.line)
    if outcome.built_whole:
        console.line(f"each rank built the whole first state: {outcome.built_whole}")
    console.line(_closing_line(outcome, args))
    console.result(
        {
            "plan": str(args.plan),
            "steps": [{"step": d.step, "loss": d.loss, "step_s": d.step_s} for d in outcome.done],
            "stopped": outcome.stopped,
            "peak_bytes": list(outcome.peak_bytes),
        }
    )


def _closing_line(outcome: Outcome, args: argparse.Namespace) -> str:
    if not outcome.done:
        if outcome.first_step > 0:
            return f"nothing left to do: the checkpoint has {outcome.first_step} steps"
        return "nothing done: --steps 0"
    typical_s = statistics.median(d.step_s for d in outcome.done)
    ended = "stopped early" if outcome.stopped else "done"
    peak = format_bytes(max(outcome.peak_bytes))
    where = f"; recorded in {args.records}" if args.records else ""
    return f"{ended}: median step {format_seconds(typical_s)}, peak of a rank {peak}{where}"


COMMAND = Command(
    name="run",
    summary="train with a plan; started by torchrun, one process a rank",
    example="example: torchrun --nproc-per-node 2 -m weft run recipes/gpt.py:gpt_small"
    " --plan plan.json",
    add_arguments=_add_arguments,
    execute=_execute,
)
