"""The border of the `weft` command: parse, call a workflow, print.

One border for errors. What weft raises on purpose is printed in its three parts, with exit
code 2; anything else is a bug of weft or of the recipe and says so in one line, with exit
code 1; an interrupt ends with 130. `--debug` shows the traceback in each case. A standard output
that is closed or full is an error like any other; a reader that goes away is none.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import sysconfig
import threading
import traceback
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import weft
from weft.cli.commands import COMMANDS
from weft.cli.console import Console, writing
from weft.core.errors import InputError, WeftError

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

__all__ = ["build_parser", "run"]

_EPILOG = "A recipe is FILE.py:FUNCTION, such as recipes/gpt.py:gpt_small."


class _Parser(argparse.ArgumentParser):
    """Raises what it dislikes instead of printing and leaving."""

    def error(self, message: str) -> NoReturn:
        raise InputError(
            need=f"a command that `{self.prog} --help` describes",
            got=message,
            hint=f"usage: {' '.join(self.format_usage().split()[1:])}",
        )

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]: one type of namespace
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Arguments of this parser; what is left is refused by the command it was given to."""
        found, rest = super().parse_known_args(args, namespace or argparse.Namespace())
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        # What --help and --version print; argparse itself passes over what it could not write.
        if file is not None:
            with writing():
                file.write(message)
            _flush()


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands, without loading what they need."""
    common = _Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print the result as one line of JSON")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = _Parser(
        prog="weft",
        description="Plans how a large model's training step is split over devices, and runs it.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"weft {weft.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        child = commands.add_parser(
            command.name,
            parents=[common],
            help=command.summary,
            description=command.summary,
            epilog=command.example,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_arguments(child)
        child.set_defaults(execute=command.execute)
    return parser


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    rank = 0
    try:
        rank = _rank()
        _accept_any_text()
        args = build_parser().parse_args(arguments)
        with _ended_in_order():
            args.execute(args, Console(as_json=args.json, quiet=rank > 0))
            _flush()
    except BrokenPipeError:
        _drop_output()  # the reader went away, as `| head` does
        return 0
    except KeyboardInterrupt:
        _say("stopped.", rank, debug)
        return 130
    except WeftError as error:
        _say(str(error), rank, debug)
        _drop_what_cannot_be_written()
        return 2
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else ""
        text = f"{type(error).__name__}: {first} ({_blamed(error)};"
        _say(f"{text} add --debug for the traceback)", rank, debug)
        return 1
    return 0


def _blamed(error: Exception) -> str:
    """Where an error comes from: the last line of a traceback that is in no installed package."""
    own = str(Path(weft.__file__).parent)
    installed = (own, *sysconfig.get_paths().values())
    frames = traceback.extract_tb(error.__traceback__)
    outside = [frame for frame in frames if not frame.filename.startswith((*installed, "<"))]
    # A recipe that calls weft in a wrong way is told so; else nothing of weft's follows its frame.
    if outside and not any(f.filename.startswith(own) for f in frames[frames.index(outside[-1]) :]):
        return f"raised in {outside[-1].filename}, line {outside[-1].lineno}"
    return "a bug in weft or in the recipe"


def _rank() -> int:
    text = os.environ.get("RANK", "0")
    if not (text.isascii() and text.isdecimal()):
        raise InputError(
            need="a whole number in the environment variable RANK, as torchrun sets it",
            got=repr(text),
            hint="unset RANK, or start with torchrun",
        )
    return int(text)


def _accept_any_text() -> None:
    """Names in any alphabet are printed in every locale, escaped where it lacks their letters."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flush() -> None:
    with writing():
        if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison]
            sys.stdout.flush()


def _drop_what_cannot_be_written() -> None:
    try:
        _flush()
    except (WeftError, OSError):
        _drop_output()


def _drop_output() -> None:
    # Python would try again on exit, and complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _ended_in_order() -> Generator[None]:
    """Turn SIGTERM into an exit that runs clean-ups, so that no started rank is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only
        return

    def leave(number: int, _: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(text: str, rank: int, debug: bool) -> None:
    if sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison]
        return  # closed by whoever started us, who does not want to know
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"weft: {text}\n" if rank == 0 else f"weft (rank {rank}): {text}\n")
    sys.stderr.flush()
