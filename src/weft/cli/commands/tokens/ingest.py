"""`weft tokens ingest`: logs into a ledger."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from weft.cli.command import Command
from weft.cli.commands.options import writable_file
from weft.cli.console import Console
from weft.core.errors import InputError

__all__ = ["ACTION"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths", metavar="PATH", type=Path, nargs="+", help="logs: files, or folders of them"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="LEDGER",
        type=writable_file,
        required=True,
        help="the ledger; made if there is none, added to otherwise",
    )
    parser.add_argument(
        "--format", metavar="NAME", default="", help="of all records, or csv (found out of each)"
    )
    parser.add_argument(
        "--column",
        metavar="WHAT=NAME",
        action="append",
        default=[],
        help="of csv: at=TIMESTAMP, input=..., output=..., model=:gpt-4 for all; repeat for more",
    )
    parser.add_argument("--at", metavar="TIME", help="when calls began that have no time")
    parser.add_argument(
        "--processes", metavar="N", type=_count, help="that read (one for each processor)"
    )


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= 256):
        raise InputError(need="a number from 1 to 256", got=repr(text), hint="leave it out")
    return int(text)


def _execute(args: argparse.Namespace, console: Console) -> None:
    from weft.report.tokens_table import printable
    from weft.tokens.adapters.envelope import seconds
    from weft.tokens.adapters.table import parse_columns
    from weft.tokens.ledger import Ledger, ingest

    is_table = args.format == "csv"
    if is_table != bool(args.column):
        raise InputError(
            need="--format csv together with --column, which says what its columns are",
            got=f"--format {args.format or 'left out'}, {len(args.column)} columns",
            hint="--format csv --column at=TIMESTAMP --column input=ContextTokens, for example",
        )
    with console.progress() as progress, Ledger(args.output) as ledger:
        done = ingest(
            ledger,
            args.paths,
            form="" if is_table else args.format,
            columns=parse_columns(args.column) if is_table else None,
            at=None if args.at is None else seconds(args.at),
            processes=args.processes,
            tell=lambda path, share: progress(path, share),
        )
    console.line(
        f"{done.records} records of {done.files} {'file' if done.files == 1 else 'files'}:"
        f" {done.calls} new calls, {done.duplicates} met before, {done.ignored} about something"
        f" else, {done.quarantined} that could not be read"
    )
    for own in done.bad:
        console.line(printable(f"  kept aside: {own.path}, line {own.line}: {own.reason}"))
    if done.quarantined > len(done.bad):
        console.line("  and more: weft tokens report shows them")
    console.line(f"wrote {args.output}")
    counts = {name: value for name, value in asdict(done).items() if name != "bad"}
    console.result({**counts, "ledger": str(args.output)})


ACTION = Command(
    name="ingest",
    summary="read logs of calls into a ledger, each call once",
    example="example: weft tokens ingest logs/ -o ledger.db",
    add_arguments=_add_arguments,
    execute=_execute,
)
