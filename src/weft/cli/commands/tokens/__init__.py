"""`weft tokens`: what tokens were used for, and what they cost.

Each action is a file of its own, with an `ACTION`; the help lists them in this order.
"""

from __future__ import annotations

import argparse

from weft.cli.command import Command
from weft.cli.commands.options import add_action
from weft.cli.commands.tokens import (
    allocate,
    audit,
    fit,
    ingest,
    price,
    report,
    serve,
    simulate,
    toll,
)
from weft.cli.console import Console

__all__ = ["ACTIONS", "COMMAND"]

ACTIONS: tuple[Command, ...] = (
    ingest.ACTION,
    report.ACTION,
    fit.ACTION,
    allocate.ACTION,
    price.ACTION,
    toll.ACTION,
    simulate.ACTION,
    audit.ACTION,
    serve.ACTION,
)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action in ACTIONS:
        child = add_action(actions.add_parser, action.name, action.summary)
        child.epilog = action.example
        action.add_arguments(child)
        child.set_defaults(act=action.execute)


def _execute(args: argparse.Namespace, console: Console) -> None:
    args.act(args, console)


COMMAND = Command(
    name="tokens",
    summary="keep account of tokens: read logs, say where tokens and money go",
    example="example: weft tokens ingest logs/ -o ledger.db && weft tokens report ledger.db",
    add_arguments=_add_arguments,
    execute=_execute,
)
