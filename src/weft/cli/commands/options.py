"""Arguments that several commands share, and what they stand for."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from weft.core.units import parse_bytes

if TYPE_CHECKING:
    from weft.machine.model import Machine

__all__ = ["add_machine", "add_recipe", "memory_limit", "read_machine"]


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """The recipe, as a positional argument."""
    parser.add_argument("recipe", metavar="RECIPE", help="FILE.py:FUNCTION")


def add_machine(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """The machine and the memory that may be used of it."""
    parser.add_argument(
        "--machine", metavar="NAME", required=required, help="a preset or a YAML file"
    )
    parser.add_argument(
        "--memory", metavar="SIZE", help="most memory on a device, such as 40GiB (its own)"
    )


def read_machine(args: argparse.Namespace) -> Machine:
    """The machine that the arguments name."""
    from weft.machine import load_machine

    return load_machine(args.machine)


def memory_limit(args: argparse.Namespace) -> float:
    """The memory limit that the arguments name; 0 for the device's own [bytes]."""
    return 0.0 if args.memory is None else float(parse_bytes(args.memory))
