"""Arguments that several commands share, and what they stand for."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from weft.core.errors import FileError, InputError
from weft.core.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from weft.machine.model import Machine
    from weft.parallel.pins import Pin

__all__ = [
    "add_action",
    "add_machine",
    "add_pins",
    "add_recipe",
    "degrees_by_group",
    "memory_limit",
    "positive_seconds",
    "read_machine",
    "read_pins",
    "writable_file",
]


def add_action(
    add: Callable[..., argparse.ArgumentParser], name: str, summary: str
) -> argparse.ArgumentParser:
    """One of a command's actions, by its `add_parser`, with the flags that every command has."""
    parser = add(name, help=summary, description=summary, allow_abbrev=False)
    # Given before the action or after it; a default here would undo the former.
    for flag, text in (("--json", "print the result as JSON"), ("--debug", "show the traceback")):
        parser.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=text)
    return parser


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """The recipe, as a positional argument."""
    parser.add_argument(
        "recipe", metavar="RECIPE", help="FILE.py:FUNCTION, or FILE.py for its function FILE"
    )


def add_machine(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """The machine and the memory that may be used of it."""
    parser.add_argument(
        "--machine", metavar="NAME", required=required, help="a preset or a YAML file"
    )
    parser.add_argument(
        "--memory", metavar="SIZE", help="most memory on a device, such as 40GiB (its own)"
    )


def add_pins(parser: argparse.ArgumentParser) -> None:
    """What the plan has to keep to; may be given several times."""
    parser.add_argument(
        "--pin",
        metavar="PIN",
        action="append",
        default=[],
        help="PATH.TENSOR=S(0)x8 or =R, 'PATH output=S(1)', 'PATH=stage 0'; repeat for more",
    )


def read_pins(args: argparse.Namespace) -> tuple[Pin, ...]:
    """The pins that the arguments name.

    Raises:
        InputError: one is not of the form.
    """
    from weft.parallel.pins import parse_pin

    return tuple(parse_pin(text) for text in args.pin)


def read_machine(args: argparse.Namespace) -> Machine:
    """The machine that the arguments name."""
    from weft.machine import load_machine

    return load_machine(args.machine)


LEAST_MEMORY_BYTES = 2 * 2**20
"""No device can do with less: the smallest block that PyTorch's CUDA allocator takes from the
driver (kSmallBuffer in c10/core/AllocatorConfig.h)."""


def memory_limit(args: argparse.Namespace) -> float | None:
    """The memory limit that the arguments name; None for the device's own [bytes].

    Raises:
        InputError: it is no size, or one that nothing runs in.
    """
    if args.memory is None:
        return None
    limit = parse_bytes(args.memory)
    if limit < LEAST_MEMORY_BYTES:
        raise InputError(
            need=f"a memory limit of at least {format_bytes(LEAST_MEMORY_BYTES)}",
            got=f"--memory {args.memory}, {limit} bytes",
            hint="write the unit, as in 40GiB; leave --memory out for all that a device has",
        )
    return float(limit)


def degrees_by_group(text: str) -> tuple[int, ...]:
    """A degree, or one for each group of devices of a pipeline: "2" or "1,2".

    Raises:
        InputError: it is something else.
    """
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise InputError(
            need="a degree, or one for each group of devices with commas between",
            got=repr(text),
            hint="for example 2, or 1,2",
        ) from None


def positive_seconds(text: str) -> float:
    """A number of seconds above 0.

    Raises:
        InputError: it is something else.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise InputError(
            need="a time limit in seconds, above 0", got=repr(text), hint="for example 60"
        )
    return seconds


def writable_file(text: str) -> Path:
    """A path that can be written to: checked before the work whose result it is to hold.

    Raises:
        FileError: its folder is missing or closed, or it is a folder.
    """
    path = Path(text)
    if path.is_dir():
        got = "a folder"
    elif not path.parent.is_dir():
        got = f"no folder {path.parent}"
    elif not os.access(path if path.exists() else path.parent, os.W_OK):
        got = "no permission to write there"
    else:
        return path
    raise FileError(
        need=f"a place to write {path} to",
        got=got,
        hint="choose a file in a folder that exists and may be written to",
    )
