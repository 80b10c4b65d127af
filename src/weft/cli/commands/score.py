"""`weft score`: what a plan written by hand would cost."""

from __future__ import annotations

import argparse

from weft.cli.command import Command
from weft.cli.commands.options import add_recipe, read_machine, writable_file
from weft.cli.console import Console
from weft.report.plan_summary import plan_plain, plan_sentence, prediction_table
from weft.workflow.plan_file import save_planned
from weft.workflow.score_plan import score_expert

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument("--machine", metavar="NAME", required=True, help="a preset or a YAML file")
    parser.add_argument("--dp", type=int, default=1, metavar="N", help="data parallel devices")
    parser.add_argument("--tp", type=int, default=1, metavar="N", help="tensor parallel devices")
    parser.add_argument("--fsdp", action="store_true", help="split parameters over the data axis")
    parser.add_argument("--sp", action="store_true", help="split norms along the sequence")
    parser.add_argument("-o", "--output", metavar="FILE", type=writable_file, help="write the plan")


def _execute(args: argparse.Namespace, console: Console) -> None:
    machine = read_machine(args)
    with console.progress() as progress:
        planned = score_expert(
            args.recipe,
            machine,
            dp=args.dp,
            tp=args.tp,
            fsdp=args.fsdp,
            sp=args.sp,
            progress=progress,
        )
    console.line(plan_sentence(planned.plan))
    console.table(prediction_table(planned.plan))
    if args.output is not None:
        save_planned(planned, args.output)
        console.line(f"wrote {args.output}")
    console.result(plan_plain(planned.plan))


COMMAND = Command(
    name="score",
    summary="say what a plan written by hand would cost",
    example="example: weft score recipes/llama3.py:llama3_8b --machine dgx-h100x8"
    " --dp 16 --tp 4 --fsdp",
    add_arguments=_add_arguments,
    execute=_execute,
)
