"""`weft tokens price`: what tokens of a served model cost, by what its operators take."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weft.cli.command import Command
from weft.cli.commands.options import writable_file
from weft.cli.console import Console
from weft.core.errors import InputError

if TYPE_CHECKING:
    from weft.tokens.serving import ServedPlan

__all__ = ["ACTION"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "plan", metavar="PLAN", type=Path, help="a served plan, or the config.json of a model"
    )
    parser.add_argument(
        "--arrivals",
        metavar="CSV",
        type=Path,
        required=True,
        help="requests: when, and tokens",
    )
    parser.add_argument("--machine", metavar="NAME", help="a preset or a file (the plan's)")
    parser.add_argument(
        "--devices", type=int, metavar="N", help="that share every layer (the plan's, or 1)"
    )
    parser.add_argument(
        "--stages", type=int, metavar="N", help="of layers, each on so many devices (the plan's, 1)"
    )
    parser.add_argument(
        "--usd-per-hour", type=float, metavar="USD", help="of one device (the plan's)"
    )
    parser.add_argument(
        "--source", default="given on the command line", help="where that price is from"
    )
    parser.add_argument(
        "--token-ms", type=float, default=100.0, help="longest time between two tokens (100)"
    )
    parser.add_argument("--sequences", type=int, default=256, help="answered at once (256)")
    parser.add_argument("--against", metavar="PROVIDER/MODEL", help="a list price to compare with")
    parser.add_argument(
        "--prices", metavar="BOOK", default="genai", help="of the list: genai, litellm, or a file"
    )
    parser.add_argument(
        "--off",
        metavar="SHARE",
        type=float,
        default=0.2,
        help="how far the cost model may be off, for the interval of --against; 0.2 is chosen and"
        " not measured: `weft bench predict` measures it on a machine (0.2)",
    )
    parser.add_argument("-o", "--output", metavar="FILE", type=writable_file, help="keep the plan")


def _execute(args: argparse.Namespace, console: Console) -> None:
    from weft.report.served_table import served_plain, served_tables
    from weft.tokens.prices import open_book
    from weft.tokens.serving import (
        Limits,
        break_even,
        list_usd,
        load_requests,
        save_served_plan,
        served_prices,
    )

    plan = _plan(args)
    requests = load_requests(args.arrivals)
    limits = Limits(
        token_s=args.token_ms / 1e3, sequences=args.sequences, step_tokens=plan.step_tokens
    )
    prices = served_prices(plan, requests, limits)
    even = None
    if args.against is not None:
        asked = list_usd(args.against, open_book(args.prices), requests, time.time())
        even = break_even(prices, asked, args.off)
    for table in served_tables(prices, even):
        console.table(table)
    if args.output is not None:
        save_served_plan(plan, args.output)
        console.line(f"wrote {args.output}")
    console.result(served_plain(prices, even) | {"limits": asdict(limits)})


def _plan(args: argparse.Namespace) -> ServedPlan:
    from weft.machine.presets import load_machine
    from weft.tokens.serving import ServedPlan, is_served_plan, load_decoder, load_served_plan

    given: dict[str, Any] = {"degree": args.devices, "stages": args.stages}
    if args.machine is not None:
        given["machine"] = load_machine(args.machine)
    if args.usd_per_hour is not None:
        given |= {"usd_per_device_hour": args.usd_per_hour, "source": args.source}
    given = {name: value for name, value in given.items() if value is not None}
    if is_served_plan(args.plan):
        return replace(load_served_plan(args.plan), **given)
    decoder = load_decoder(args.plan)
    if "machine" not in given or "source" not in given:
        raise InputError(
            need="with a config.json, a machine and what an hour of one of its devices costs",
            got=f"{args.plan} alone" if len(given) == 0 else "one of the two",
            hint="--machine dgx-h100x1 --usd-per-hour 2.5; a served plan (-o) has both",
        )
    return ServedPlan(decoder=decoder, **given)


ACTION = Command(
    name="price",
    summary="what tokens of a served model cost, from its operators and its arrivals",
    example="example: weft tokens price config.json --machine dgx-h100x1 --devices 8 "
    "--usd-per-hour 2.5 --arrivals trace.csv",
    add_arguments=_add_arguments,
    execute=_execute,
)
