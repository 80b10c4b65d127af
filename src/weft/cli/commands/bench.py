"""`weft bench`: run a benchmark of the checkout and say what holds."""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

from weft.cli.command import Command
from weft.cli.console import Console
from weft.core.errors import FileError, InputError
from weft.report.bench import BenchReport, claim_table, report_json, save_report

__all__ = ["COMMAND", "find_benchmarks"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="a folder of benchmarks/")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller cases")
    parser.add_argument("--device", metavar="KIND", help="where to measure, if there is a choice")
    parser.add_argument("--save", action="store_true", help="append to benchmarks/results/")


def find_benchmarks() -> Path:
    """The folder benchmarks/ here, or of the checkout that this package is part of.

    Raises:
        FileError: there is none, as for an installed wheel.
    """
    places = (Path.cwd(), Path(__file__).resolve().parents[4])
    for place in places:
        if (place / "benchmarks").is_dir():
            return place / "benchmarks"
    raise FileError(
        need="the folder benchmarks/ of a weft checkout",
        got=f"none in {places[0]}",
        hint="change into the checkout; the installed package holds no benchmarks",
    )


def _execute(args: argparse.Namespace, console: Console) -> None:
    folder = find_benchmarks()
    names = sorted(path.parent.name for path in folder.glob("*/run.py"))
    wanted = (args.name or "").replace("-", "_")
    if wanted not in names:
        raise InputError(
            need="the name of a benchmark",
            got=repr(args.name) if args.name else "none",
            hint=f"there are {', '.join(names)}" if names else f"{folder} is empty",
        )
    report = _load(folder, wanted)(args.quick, args.device)
    if report.table is not None:
        console.table(report.table)
    console.table(claim_table(report))
    if args.save:
        path = save_report(report, folder / "results")
        console.line(f"added a line to {path}")
    # The line of JSON is the last one with and without --json: other programs read it.
    console.always(report_json(report))


def _load(folder: Path, name: str) -> Callable[[bool, str | None], BenchReport]:
    path = folder / name / "run.py"
    # Imported under its dotted name, so that processes it spawns can import it again.
    sys.path.insert(0, str(folder.parent))
    module = importlib.import_module(f"benchmarks.{name}.run")
    if module.__file__ is None or not path.samefile(module.__file__):
        raise FileError(
            need=f"{path} under the name benchmarks.{name}.run",
            got=f"{module.__file__}",
            hint="another package called benchmarks is in the way; uninstall it",
        )
    run = getattr(module, "run", None)
    if not callable(run):
        raise FileError(
            need=f"a function run(quick) in {path}",
            got="a file without it",
            hint="it returns a weft.report.BenchReport",
        )

    def measure(quick: bool, device: str | None) -> BenchReport:
        if device is not None and "device" not in inspect.signature(run).parameters:
            raise InputError(
                need="a benchmark with a choice of devices",
                got=f"{name} --device {device}",
                hint="leave out --device",
            )
        report = run(quick) if device is None else run(quick, device=device)
        if not isinstance(report, BenchReport):
            raise FileError(
                need=f"a BenchReport from run(quick) in {path}",
                got=f"a {type(report).__name__}",
                hint="see weft.report.bench",
            )
        return report

    return measure


COMMAND = Command(
    name="bench",
    summary="run a benchmark of the checkout; the last line is JSON",
    example="example: weft bench scaling --quick",
    add_arguments=_add_arguments,
    execute=_execute,
)
