"""`weft tokens report`: where tokens and money went."""

from __future__ import annotations

import argparse

from weft.cli.command import Command
from weft.cli.commands.options import writable_file
from weft.cli.commands.tokens.ledger_file import add_ledger
from weft.cli.console import Console

__all__ = ["ACTION"]

_BY = ("provider", "model")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_ledger(parser)
    parser.add_argument(
        "--by",
        metavar="KEYS",
        type=_keys,
        default=_BY,
        help="agent, task, session, payer, arm, tier, status, day and more, with commas between"
        " (provider,model)",
    )
    parser.add_argument(
        "--prices", metavar="BOOK", help="genai, litellm, or a file of prices (tokens alone)"
    )
    parser.add_argument("--html", metavar="FILE", type=writable_file, help="write a page")


def _keys(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (key.strip() for key in text.split(","))))


def _execute(args: argparse.Namespace, console: Console) -> None:
    from weft.report.page import write_page
    from weft.report.tokens_page import tokens_page
    from weft.report.tokens_table import (
        caveats,
        quarantine_table,
        report_plain,
        report_sentence,
        skew_table,
        spent_table,
        unpriced_table,
    )
    from weft.tokens.ledger import Ledger
    from weft.tokens.prices import open_book
    from weft.workflow.tokens_report import tokens_report

    book = None if args.prices is None else open_book(args.prices)
    with Ledger(args.ledger) as ledger:
        report = tokens_report(ledger, by=args.by, book=book)
    console.line(report_sentence(report))
    console.line()
    console.table(spent_table(report))
    for table in (unpriced_table(report), quarantine_table(report), skew_table(report)):
        if table.rows:
            console.line()
            console.table(table)
    console.line()
    for line in caveats(report):
        console.line(line)
    if report.book is not None:
        console.line(f"prices: {report.book}")
    if args.html is not None:
        write_page(tokens_page(report), args.html)
        console.line(f"wrote {args.html}")
    console.result(report_plain(report))


ACTION = Command(
    name="report",
    summary="say where tokens and money went, and how well that is known",
    example="example: weft tokens report ledger.db --by agent --prices genai --html page.html",
    add_arguments=_add_arguments,
    execute=_execute,
)
