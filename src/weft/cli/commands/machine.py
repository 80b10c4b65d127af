"""`weft machine`: what a machine file or preset says, or what this host measures."""

from __future__ import annotations

import argparse
from pathlib import Path

from weft.cli.command import Command
from weft.cli.commands.options import writable_file
from weft.cli.console import Console
from weft.core.errors import InputError
from weft.report.machine_table import machine_plain, machine_tables
from weft.workflow.probe_host import probe_host, probe_uneven

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="a preset, a YAML file, or probe")
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=writable_file, help="write it as YAML"
    )
    parser.add_argument("--ranks", type=int, metavar="N", help="ranks to probe (2)")
    parser.add_argument(
        "--cluster", type=Path, metavar="FILE", help="probe the uneven cluster described there"
    )


def _execute(args: argparse.Namespace, console: Console) -> None:
    from weft.machine import load_machine, preset_names, save_machine

    _require_use_for_all(args)
    if args.name is None:
        _list(tuple(preset_names()), console)
        return
    if args.name == "probe":
        with console.progress() as progress:
            if args.cluster is not None:
                machine = probe_uneven(args.cluster, progress=progress)
            else:
                machine = probe_host(2 if args.ranks is None else args.ranks, progress=progress)
    else:
        machine = load_machine(args.name)
    for table in machine_tables(machine):
        console.table(table)
        console.line()
    if args.cluster is not None:
        console.line(machine.notes)
    if args.output is not None:
        save_machine(machine, args.output)
        console.line(f"wrote {args.output}")
    console.result(machine_plain(machine))


def _require_use_for_all(args: argparse.Namespace) -> None:
    """What a command line asks for is done or refused, never passed over."""
    if args.ranks is not None and args.name != "probe":
        raise InputError(
            need="--ranks with `weft machine probe` only",
            got=f"--ranks {args.ranks} with {args.name or 'no machine'}",
            hint="the ranks of a preset are its devices; write dgx-h100x2 for two nodes",
        )
    if args.cluster is not None and (args.name != "probe" or args.ranks is not None):
        raise InputError(
            need="--cluster with `weft machine probe`, and without --ranks",
            got=f"--cluster {args.cluster} with {args.name or 'no machine'}"
            + (f" and --ranks {args.ranks}" if args.ranks is not None else ""),
            hint="the description says how many ranks there are",
        )
    if args.ranks is not None and args.ranks < 1:
        raise InputError(
            need="at least one rank to probe",
            got=f"--ranks {args.ranks}",
            hint="leave it out for 2",
        )
    if args.name is None and args.output is not None:
        raise InputError(
            need="the machine to write",
            got=f"-o {args.output} without one",
            hint="name a preset, or measure this host with `weft machine probe -o FILE`",
        )


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
