"""`weft demo`: plan and run a small GPT on this machine, and show what came out."""

from __future__ import annotations

import argparse
from pathlib import Path

from weft.cli.command import Command
from weft.cli.console import Console

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, default=Path("demo.html"))


def _execute(args: argparse.Namespace, console: Console) -> None:
    raise NotImplementedError


COMMAND = Command(
    name="demo",
    summary="plan and run a small GPT on this machine, and show what came out",
    example="example: weft demo",
    add_arguments=_add_arguments,
    execute=_execute,
)
