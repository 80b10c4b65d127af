"""`weft tokens fit`: what tokens did for outcomes, and how far that may be believed."""

from __future__ import annotations

import argparse

from weft.cli.command import Command
from weft.cli.commands.tokens.ledger_file import add_ledger
from weft.cli.console import Console
from weft.core.errors import InputError

__all__ = ["ACTION"]

_MODES = ("experimental", "within", "observational")
_FAMILIES = ("cobb-douglas", "ces", "translog")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_ledger(parser)
    parser.add_argument(
        "--outcome", default="passed", choices=("passed",), help="what came of a task (passed)"
    )
    parser.add_argument(
        "--mode",
        choices=_MODES,
        help="what moved tokens: arms drawn at random (where all attempts have one), what differs"
        " within a task, or anything (else)",
    )
    parser.add_argument(
        "--inputs", metavar="NAMES", default="output", help="output, input or classes (output)"
    )
    parser.add_argument("--family", choices=_FAMILIES, default="cobb-douglas", help="the shape")
    parser.add_argument(
        "--prices", metavar="BOOK", help="genai, litellm, or a file: cost of a pass"
    )


def _execute(args: argparse.Namespace, console: Console) -> None:
    from weft.tokens.ledger import Ledger
    from weft.tokens.micro import (
        Ces,
        CobbDouglas,
        Mode,
        Translog,
        cost_of_pass,
        fit_production,
        pass_frontier,
    )
    from weft.tokens.prices import open_book
    from weft.workflow.ledger_trials import ledger_attempts, ledger_trials

    book = None if args.prices is None else open_book(args.prices)
    with Ledger(args.ledger) as ledger:
        attempts, left_out = ledger_attempts(ledger, book)
    names = [name.strip() for name in args.inputs.split(",") if name.strip()]
    trials, unclear = ledger_trials(attempts, names)
    families = dict(zip(_FAMILIES, (CobbDouglas(), Ces(), Translog()), strict=True))
    mode = args.mode or ("experimental" if trials.arm and all(trials.arm) else "observational")
    fit = fit_production(trials, mode=Mode(mode), family=families[args.family])
    console.line(fit.explain())
    for why, count in [*left_out.items(), ("tokens not known, or none", unclear)]:
        if count:
            console.line(f"  left out    {count} attempts: {why}")
    plain: dict[str, object] = {
        "mode": mode,
        "attempts": len(trials),
        "elasticities": {
            name: [own.value, own.low, own.high] for name, own in fit.elasticities().items()
        },
        "warnings": list(fit.warnings),
    }
    if book is not None:
        if trials.usd is None:
            raise InputError(
                need="a price of every attempt",
                got=f"none of some by {args.prices}",
                hint="weft tokens report LEDGER --prices BOOK names the models without one",
            )
        arms = cost_of_pass(trials)
        for own in arms:
            console.line(f"  {own.name}: {own.passes} pass, {own.usd_per_pass} usd for each")
        for step in pass_frontier(trials):
            console.line(f"  {step.before} to {step.after}: one more is {step.usd_per_pass} usd")
        plain["usd_per_pass"] = {own.name: own.usd_per_pass.value for own in arms}
    console.result(plain)


ACTION = Command(
    name="fit",
    summary="say what tokens do for outcomes, with intervals, or why that cannot be told",
    example="example: weft tokens fit ledger.db --mode experimental --prices genai",
    add_arguments=_add_arguments,
    execute=_execute,
)
