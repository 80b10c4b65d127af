"""`weft tokens toll`: what a request costs all others by making them wait."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from pathlib import Path

from weft.cli.command import Command
from weft.cli.console import Console
from weft.core.errors import InputError

__all__ = ["ACTION", "add_server", "number", "whole"]

_MOST = 1e12
"""Of dollars, requests and draws. Chosen: more is a mistake."""


def number(text: str) -> float:
    """A number of an argument that is above zero.

    Raises:
        InputError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < _MOST:
        need = f"a number above zero, and below {_MOST:g}"
        raise InputError(need=need, got=repr(text), hint="0.001, for example")
    return value


def whole(text: str) -> int:
    """A number of an argument that counts something.

    Raises:
        InputError: it is none.
    """
    value = number(text)
    if not value.is_integer():
        raise InputError(need="a whole number above zero", got=repr(text), hint="10, for example")
    return int(value)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(number(part) for part in text.split(","))


def add_server(parser: argparse.ArgumentParser) -> None:
    """The server's steps, and how many requests it takes at once."""
    parser.add_argument(
        "--steps", metavar="FILE", type=Path, required=True, help="what steps of the server take"
    )
    parser.add_argument(
        "--most", metavar="N", type=whole, default=256, help="requests in a batch (256)"
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "requests", metavar="REQUESTS", type=Path, help="a ledger, or a CSV of times and tokens"
    )
    add_server(parser)
    parser.add_argument(
        "--delay",
        metavar="USD",
        type=number,
        default=0.001,
        help="what a second of delay costs a request (0.001)",
    )
    parser.add_argument("--loads", metavar="SHARES", type=_numbers, help="0.5,0.9: of the server")
    parser.add_argument("--model", metavar="NAME", default="", help="of a ledger's models (all)")


def _execute(args: argparse.Namespace, console: Console) -> None:
    from weft.report.market_table import toll_sentence, toll_table
    from weft.tokens.macro.market_file import read_steps
    from weft.workflow.tolls import LOADS, read_requests, toll_report

    times = read_steps(args.steps)
    requests = read_requests(args.requests, model=args.model)
    report = toll_report(
        requests,
        times,
        delay_usd_per_s=args.delay,
        loads=args.loads or LOADS,
        max_sequences=args.most,
    )
    console.line(toll_sentence(report))
    console.line()
    console.table(toll_table(report))
    if requests.left_out:
        console.line(f"left out: {requests.left_out} calls whose tokens are not known")
    console.result(
        {
            "source": report.source,
            "requests": report.requests,
            "rate": report.rate if math.isfinite(report.rate) else None,
            "load": report.load if math.isfinite(report.load) else None,
            "delay_usd_per_s": report.delay_usd_per_s,
            "left_out": requests.left_out,
            "tolls": [{"rate": rate, **asdict(own)} for rate, own in report.rows],
        }
    )


ACTION = Command(
    name="toll",
    summary="say what a request costs all others by making them wait, by load and class of tokens",
    example="example: weft tokens toll trace.csv --steps server.yaml --delay 0.002",
    add_arguments=_add_arguments,
    execute=_execute,
)
