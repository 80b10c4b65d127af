"""`weft machine`: what a machine file or preset says, or what this host measures."""

from __future__ import annotations

import argparse

from weft.cli.command import Command
from weft.cli.commands.options import writable_file
from weft.cli.console import Console
from weft.report.machine_table import machine_plain, machine_tables
from weft.workflow.probe_host import probe_host

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="a preset, a YAML file, or probe")
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=writable_file, help="write it as YAML"
    )
    parser.add_argument("--ranks", type=int, default=2, metavar="N", help="ranks to probe (2)")


def _execute(args: argparse.Namespace, console: Console) -> None:
    from weft.machine import load_machine, preset_names, save_machine

    if args.name is None:
        _list(tuple(preset_names()), console)
        return
    if args.name == "probe":
        with console.progress() as progress:
            machine = probe_host(args.ranks, progress=progress)
    else:
        machine = load_machine(args.name)
    for table in machine_tables(machine):
        console.table(table)
        console.line()
    if args.output is not None:
        save_machine(machine, args.output)
        console.line(f"wrote {args.output}")
    console.result(machine_plain(machine))


def _list(names: tuple[str, ...], console: Console) -> None:
    console.line("presets: " + ", ".join(names))
    console.line("or a YAML file, or `weft machine probe -o host.yaml` for this host")
    console.result({"presets": list(names)})


COMMAND = Command(
    name="machine",
    summary="show a machine: a preset, a YAML file, or this host as measured",
    example="example: weft machine probe -o host.yaml",
    add_arguments=_add_arguments,
    execute=_execute,
)
