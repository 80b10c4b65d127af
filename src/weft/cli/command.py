"""What a command is: a name, a line about it, its arguments and what it does."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from weft.cli.console import Console

__all__ = ["Command"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One subcommand of `weft`.

    Attributes:
        name: as typed.
        summary: one line for the help.
        example: a command line that works.
        add_arguments: declares the arguments on the subcommand's parser.
        execute: does it; raises `WeftError` for what the user can mend.
    """

    name: str
    summary: str
    example: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    execute: Callable[[argparse.Namespace, Console], None]
