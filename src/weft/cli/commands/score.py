"""`weft score`: what a plan written by hand, or by another system, would cost."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from weft.cli.command import Command
from weft.cli.commands.options import (
    add_pins,
    add_recipe,
    degrees_by_group,
    read_machine,
    read_pins,
    writable_file,
)
from weft.cli.console import Console
from weft.core.errors import InputError
from weft.report.pipeline_summary import pipeline_plain, pipeline_sentence, stage_table
from weft.report.plan_summary import plan_plain, plan_sentence, prediction_table
from weft.workflow.plan_file import save_pipeline, save_planned
from weft.workflow.planned import Planned
from weft.workflow.score_plan import score_expert, score_pipeline, score_placements

if TYPE_CHECKING:
    from weft.machine.model import Machine
    from weft.parallel.degrees import DegreeNames
    from weft.parallel.pipeline.plan import PipelinePlan
    from weft.workflow.progress import Progress

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument("--machine", metavar="NAME", required=True, help="a preset or a YAML file")
    _add_degrees(parser)
    _add_pipeline(parser)
    parser.add_argument(
        "--placements", type=Path, metavar="FILE", help="placements of another system, as JSON"
    )
    add_pins(parser)
    parser.add_argument("-o", "--output", metavar="FILE", type=writable_file, help="write the plan")


def _add_degrees(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "degrees", "N may be N,N,..., one for each of the groups of devices of a pipeline"
    )
    each = degrees_by_group
    group.add_argument("--dp", type=each, default=(1,), metavar="N", help="data parallel devices")
    group.add_argument("--tp", type=each, default=(1,), metavar="N", help="tensor parallel devices")
    group.add_argument("--sp", action="store_true", help="split norms along the sequence")
    group.add_argument(
        "--wide", action="store_true", help="--tp for wide layers alone, the batch elsewhere"
    )
    group.add_argument(
        "--cp", type=each, default=(1,), metavar="N", help="context parallel devices"
    )
    group.add_argument(
        "--ep", type=each, default=(1,), metavar="N", help="of the data parallel ones, for experts"
    )
    group.add_argument(
        "--zero", type=int, default=0, metavar="STAGE", help="1, 2 or 3: what is split over --dp"
    )
    group.add_argument("--fsdp", action="store_true", help="the same as --zero 3")
    group.add_argument(
        "--recompute", default="", metavar="HOW", help="cheap or full: what runs again in backward"
    )


def _add_pipeline(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("pipeline")
    group.add_argument("--pp", type=int, default=1, metavar="N", help="pipeline stages")
    group.add_argument(
        "--micro-batches", type=int, default=0, metavar="M", help="parts of the batch (2 x pp)"
    )
    group.add_argument(
        "--schedule",
        default="",
        metavar="NAME",
        help="gpipe, 1f1b (default), interleaved, zero-bubble",
    )
    group.add_argument(
        "--chunks", type=int, default=1, metavar="K", help="stages of each group of devices"
    )
    group.add_argument(
        "--standing",
        type=degrees_by_group,
        default=(),
        metavar="N,N,...",
        help="of each group, which block of ranks it stands on: 1,0 for the last ones first",
    )


_PLAIN = {
    "dp": (1,),
    "tp": (1,),
    "sp": False,
    "wide": False,
    "cp": (1,),
    "ep": (1,),
    "zero": 0,
    "fsdp": False,
    "recompute": "",
    "pp": 1,
    "micro_batches": 0,
    "schedule": "",
    "chunks": 1,
    "standing": (),
}
"""What degrees are where nothing is said, for those that a file of placements replaces."""


def _execute(args: argparse.Namespace, console: Console) -> None:
    machine = read_machine(args)
    if args.placements is not None:
        given = [f"--{name.replace('_', '-')}" for name in _PLAIN if _is_given(args, name)]
        given += ["--pin"] if args.pin else []
        if given:
            raise InputError(
                need="either placements, or degrees and pins",
                got=f"--placements and {', '.join(given)}",
                hint="say in the file what is split, recomputed and put into stages",
            )
    if args.pp < 1:
        raise InputError(
            need="at least one pipeline stage", got=f"--pp {args.pp}", hint="--pp 1 is none"
        )
    given = sorted({len(getattr(args, name)) for name in _BY_GROUP} - {1})
    if given and given != [args.pp]:
        raise InputError(
            need=f"degrees for all groups at once, or one for each of {args.pp}",
            got=f"{' and '.join(map(str, given))} degrees",
            hint="for example --pp 2 --dp 1,2 --tp 2,1",
        )
    if args.standing and args.pp == 1:
        raise InputError(
            need="several groups of devices for --standing",
            got="--pp 1",
            hint="for example --pp 2 --standing 1,0",
        )
    if args.wide and (args.pp > 1 or args.micro_batches):
        raise InputError(
            need="plans of one stage for --wide",
            got=f"--pp {args.pp}, {args.micro_batches or 'no'} micro-batches",
            hint="leave --wide out: pipelines cut all layers --tp ways",
        )
    if args.pp == 1 and not args.micro_batches and (args.chunks > 1 or args.schedule):
        raise InputError(
            need="micro-batches for a schedule and chunks",
            got=f"--chunks {args.chunks} {args.schedule}".rstrip() + ", and the batch in one part",
            hint="give --micro-batches, or --pp 2 or more",
        )
    with console.progress() as progress:
        scored = _scored(args, machine, progress)
    if isinstance(scored, Planned):
        _show_plan(scored, args.output, console)
    else:
        _show_pipeline(scored, args.output, console)


def _is_given(args: argparse.Namespace, name: str) -> bool:
    return bool(getattr(args, name) != _PLAIN[name])


def _scored(
    args: argparse.Namespace, machine: Machine, progress: Progress
) -> Planned | PipelinePlan:
    if args.placements is not None:
        return score_placements(args.recipe, machine, args.placements, progress=progress)
    pins = read_pins(args)
    by_group = [_degrees(args, group) for group in range(args.pp)]
    if args.pp == 1 and not args.micro_batches:
        return score_expert(args.recipe, machine, pins=pins, progress=progress, **by_group[0])
    return score_pipeline(
        args.recipe,
        machine,
        pp=args.pp,
        micro_batches=args.micro_batches or 2 * args.pp,
        schedule=args.schedule or "1f1b",
        chunks=args.chunks,
        by_group=by_group,
        standing=args.standing,
        pins=pins,
        progress=progress,
    )


_BY_GROUP = ("dp", "tp", "cp", "ep")
"""Degrees that groups of devices may have of their own."""


def _degrees(args: argparse.Namespace, group: int) -> DegreeNames:
    """Degrees within a group of devices."""

    def of(name: str) -> int:
        given: tuple[int, ...] = getattr(args, name)
        return given[group if len(given) > 1 else 0]

    return {
        "dp": of("dp"),
        "tp": of("tp"),
        # Where degrees differ, the sequence is split in the groups that are tensor parallel.
        "sp": args.sp and (len(args.tp) == 1 or of("tp") > 1),
        "wide": args.wide,
        "cp": of("cp"),
        "ep": of("ep"),
        "zero": args.zero,
        "fsdp": args.fsdp,
        "recompute": args.recompute,
    }


def _show_plan(planned: Planned, output: Path | None, console: Console) -> None:
    console.line(plan_sentence(planned.plan))
    console.table(prediction_table(planned.plan))
    if output is not None:
        save_planned(planned, output)
        console.line(f"wrote {output}")
    console.result(plan_plain(planned.plan))


def _show_pipeline(plan: PipelinePlan, output: Path | None, console: Console) -> None:
    console.line(pipeline_sentence(plan))
    console.table(stage_table(plan))
    if output is not None:
        save_pipeline(plan, output)
        console.line(f"wrote {output}")
    console.result(pipeline_plain(plan))


COMMAND = Command(
    name="score",
    summary="say what a plan written by hand, or by another system, would cost",
    example="example: weft score recipes/llama3.py:llama3_8b --machine dgx-h100x8"
    " --dp 16 --tp 4 --fsdp",
    add_arguments=_add_arguments,
    execute=_execute,
)
