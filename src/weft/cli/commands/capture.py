"""`weft capture`: turn a recipe's training step into a program and describe it."""

from __future__ import annotations

import argparse

from weft.cli.command import Command
from weft.cli.commands.options import add_recipe, writable_file
from weft.cli.console import Console
from weft.core.files import write_whole
from weft.report.program_table import program_plain, program_table
from weft.workflow.capture_recipe import capture_recipe

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument(
        "--text", metavar="FILE", type=writable_file, help="write the program as text"
    )


def _execute(args: argparse.Namespace, console: Console) -> None:
    with console.progress() as progress:
        captured = capture_recipe(args.recipe, progress=progress)
    console.table(program_table(captured.program, captured.capture_s))
    if args.text is not None:
        from weft.program.text import to_text

        write_whole(args.text, to_text(captured.program), "a program")
        console.line(f"wrote {args.text}")
    console.result({**program_plain(captured.program), "capture_s": captured.capture_s})


COMMAND = Command(
    name="capture",
    summary="turn a recipe's training step into a program",
    example="example: weft capture recipes/gpt.py:gpt_small --text program.txt",
    add_arguments=_add_arguments,
    execute=_execute,
)
