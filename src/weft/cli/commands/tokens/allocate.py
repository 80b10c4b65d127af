"""`weft tokens allocate`: what a budget is best spent on, by what a ledger says."""

from __future__ import annotations

import argparse
import json

from weft.cli.command import Command
from weft.cli.commands.options import writable_file
from weft.cli.commands.tokens.ledger_file import add_ledger
from weft.cli.console import Console
from weft.tokens.money import parse_money

__all__ = ["ACTION"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_ledger(parser)
    parser.add_argument(
        "--budget", metavar="SUM", required=True, help="in dollars, for all tasks: 50usd"
    )
    parser.add_argument(
        "--prices", metavar="BOOK", required=True, help="genai, litellm, or a file of prices"
    )
    parser.add_argument(
        "--by", default="agent", choices=("agent", "payer", "model"), help="kinds of tasks (agent)"
    )
    parser.add_argument("-o", "--output", metavar="FILE", type=writable_file, help="keep the plan")


def _execute(args: argparse.Namespace, console: Console) -> None:
    from weft.tokens.allocate import save_budget_plan
    from weft.tokens.ledger import Ledger
    from weft.tokens.prices import open_book
    from weft.workflow.ledger_trials import ledger_attempts, ledger_plan

    budget = parse_money(args.budget)
    with Ledger(args.ledger) as ledger:
        attempts, left_out = ledger_attempts(ledger, open_book(args.prices))
    plan = ledger_plan(attempts, budget, args.by)
    console.line(plan.explain())
    unpriced = sum(own.usd is None for own in attempts)
    for why, count in [*left_out.items(), ("no price of them, or tokens not known", unpriced)]:
        if count:
            console.line(f"  left out    {count} attempts: {why}")
    if not all(own.arm for own in attempts):
        console.warn(
            "not all attempts were under an arm that was drawn: a model that got the easy tasks "
            "looks better than it is"
        )
    if args.output is not None:
        save_budget_plan(plan, args.output)
        console.line(f"wrote {args.output}")
    console.result(json.loads(plan.to_json()))


ACTION = Command(
    name="allocate",
    summary="spend a budget where a dollar brings most",
    example="example: weft tokens allocate ledger.db --budget 50usd --prices genai",
    add_arguments=_add_arguments,
    execute=_execute,
)
