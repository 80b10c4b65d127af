"""`weft score`: what a plan written by hand would cost."""

from __future__ import annotations

import argparse

from weft.cli.command import Command
from weft.cli.commands.options import (
    add_pins,
    add_recipe,
    read_machine,
    read_pins,
    writable_file,
)
from weft.cli.console import Console
from weft.core.errors import InputError
from weft.machine.model import Machine
from weft.report.pipeline_summary import pipeline_plain, pipeline_sentence, stage_table
from weft.report.plan_summary import plan_plain, plan_sentence, prediction_table
from weft.workflow.plan_file import save_pipeline, save_planned
from weft.workflow.score_plan import score_expert, score_pipeline

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument("--machine", metavar="NAME", required=True, help="a preset or a YAML file")
    parser.add_argument("--dp", type=int, default=1, metavar="N", help="data parallel devices")
    parser.add_argument("--tp", type=int, default=1, metavar="N", help="tensor parallel devices")
    parser.add_argument("--fsdp", action="store_true", help="split parameters over the data axis")
    parser.add_argument("--sp", action="store_true", help="split norms along the sequence")
    parser.add_argument("--pp", type=int, default=1, metavar="N", help="pipeline stages")
    parser.add_argument(
        "--micro-batches", type=int, default=0, metavar="M", help="parts of the batch (2 x pp)"
    )
    parser.add_argument(
        "--schedule", default="1f1b", metavar="NAME", help="gpipe, 1f1b, interleaved, zero-bubble"
    )
    parser.add_argument(
        "--chunks", type=int, default=1, metavar="K", help="stages of each group of devices"
    )
    add_pins(parser)
    parser.add_argument("-o", "--output", metavar="FILE", type=writable_file, help="write the plan")


def _execute(args: argparse.Namespace, console: Console) -> None:
    machine = read_machine(args)
    if args.pp < 1:
        raise InputError(
            need="at least one pipeline stage", got=f"--pp {args.pp}", hint="--pp 1 is none"
        )
    if args.pp > 1:
        _score_pipeline(args, machine, console)
        return
    if args.micro_batches or args.chunks > 1:
        raise InputError(
            need="pipeline stages for micro-batches and chunks",
            got=f"--pp 1, --micro-batches {args.micro_batches}, --chunks {args.chunks}",
            hint="give --pp 2 or more",
        )
    with console.progress() as progress:
        planned = score_expert(
            args.recipe,
            machine,
            dp=args.dp,
            tp=args.tp,
            fsdp=args.fsdp,
            sp=args.sp,
            pins=read_pins(args),
            progress=progress,
        )
    console.line(plan_sentence(planned.plan))
    console.table(prediction_table(planned.plan))
    if args.output is not None:
        save_planned(planned, args.output)
        console.line(f"wrote {args.output}")
    console.result(plan_plain(planned.plan))


def _score_pipeline(args: argparse.Namespace, machine: Machine, console: Console) -> None:
    with console.progress() as progress:
        plan = score_pipeline(
            args.recipe,
            machine,
            pp=args.pp,
            micro_batches=args.micro_batches or 2 * args.pp,
            schedule=args.schedule,
            chunks=args.chunks,
            dp=args.dp,
            tp=args.tp,
            fsdp=args.fsdp,
            sp=args.sp,
            pins=read_pins(args),
            progress=progress,
        )
    console.line(pipeline_sentence(plan))
    console.table(stage_table(plan))
    if args.output is not None:
        save_pipeline(plan, args.output)
        console.line(f"wrote {args.output}")
    console.result(pipeline_plain(plan))


COMMAND = Command(
    name="score",
    summary="say what a plan written by hand would cost",
    example="example: weft score recipes/llama3.py:llama3_8b --machine dgx-h100x8"
    " --dp 16 --tp 4 --fsdp",
    add_arguments=_add_arguments,
    execute=_execute,
)
