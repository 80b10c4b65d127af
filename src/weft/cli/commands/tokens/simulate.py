"""`weft tokens simulate`: ways to share a server, side by side on a trace."""

from __future__ import annotations

import argparse
from pathlib import Path

from weft.cli.command import Command
from weft.cli.commands.options import writable_file
from weft.cli.commands.tokens.toll import add_server, number, whole
from weft.cli.console import Console

__all__ = ["ACTION"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "requests", metavar="REQUESTS", type=Path, help="a ledger, or a CSV of times and tokens"
    )
    add_server(parser)
    parser.add_argument(
        "--clients", metavar="FILE", type=Path, help="who sends them (ten of three sorts)"
    )
    parser.add_argument(
        "--load",
        metavar="SHARE",
        type=number,
        default=1.2,
        help="of the server, if all were sent: times are stretched to it (1.2)",
    )
    parser.add_argument("--first", metavar="N", type=whole, help="requests alone (all)")
    parser.add_argument(
        "--seeds", metavar="N", type=whole, default=5, help="draws of values and payers (5)"
    )
    parser.add_argument(
        "--only", metavar="NAME", action="append", help="a mechanism; repeat for more (all)"
    )
    parser.add_argument("--model", metavar="NAME", default="", help="of a ledger's models (all)")
    parser.add_argument("--html", metavar="FILE", type=writable_file, help="write a page")


def _execute(args: argparse.Namespace, console: Console) -> None:
    from weft.report.market_page import market_page
    from weft.report.market_table import market_plain, market_sentence, market_table
    from weft.report.page import write_page
    from weft.tokens.macro.comparison import MECHANISMS, compare
    from weft.tokens.macro.market_file import EXAMPLE_CLIENTS, read_clients, read_steps
    from weft.workflow.tolls import read_requests

    times = read_steps(args.steps)
    clients = EXAMPLE_CLIENTS if args.clients is None else read_clients(args.clients)
    trace = read_requests(args.requests, model=args.model).trace
    trace = trace if args.first is None else trace.first(args.first)
    with console.progress() as progress:
        found = compare(
            trace,
            times,
            clients,
            load=args.load,
            seeds=args.seeds,
            mechanisms=args.only or MECHANISMS,
            max_sequences=args.most,
            tell=lambda name, share: progress("market", share, name),
        )
    console.line(market_sentence(found))
    console.line()
    console.table(market_table(found))
    if args.html is not None:
        write_page(market_page(found, source=str(args.requests), requests=len(trace)), args.html)
        console.line(f"wrote {args.html}")
    console.result(market_plain(found))


ACTION = Command(
    name="simulate",
    summary="play a trace of requests with ways to share a server, free and with tolls",
    example="example: weft tokens simulate trace.csv --steps server.yaml --load 1.5 --html m.html",
    add_arguments=_add_arguments,
    execute=_execute,
)
