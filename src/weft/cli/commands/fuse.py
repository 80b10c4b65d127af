"""`weft fuse`: which operators of a model become one kernel, and what that saves."""

from __future__ import annotations

import argparse
from pathlib import Path

from weft.cli.command import Command
from weft.cli.commands.options import add_recipe, writable_file
from weft.cli.console import Console
from weft.core.files import write_whole
from weft.report.fusion_page import fusion_plain, fusion_table, write_fusion_page
from weft.workflow.fuse_model import fuse_recipe, source_of

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument("--html", metavar="FILE", type=writable_file, help="write a page")
    parser.add_argument(
        "--source", metavar="FILE", type=writable_file, help="write the kernels' C++, as compiled"
    )
    parser.add_argument("--strict", action="store_true", help="fail where a region cannot be one")
    parser.add_argument(
        "--measure",
        action="store_true",
        help="time plans and Inductor's kernels: 1 to 3 s a region",
    )
    parser.add_argument(
        "--every-region", action="store_true", help="take regions that gain nothing as well"
    )


def _execute(args: argparse.Namespace, console: Console) -> None:
    with console.progress() as progress:
        options = {name: True for name in ("strict", "measure", "every_region") if vars(args)[name]}
        fused = fuse_recipe(args.recipe, options=options, progress=progress)
    console.line(str(fused))
    console.table(fusion_table(fused))
    if args.html is not None:
        write_fusion_page(fused, Path(args.html))
        console.line(f"wrote {args.html}")
    if args.source is not None:
        write_whole(args.source, source_of(fused), "generated code")
        console.line(f"wrote {args.source}")
    console.result(fusion_plain(fused))


COMMAND = Command(
    name="fuse",
    summary="show which operators of a model become one kernel",
    example="example: weft fuse recipes/gpt.py:gpt_small --html fused.html",
    add_arguments=_add_arguments,
    execute=_execute,
)
