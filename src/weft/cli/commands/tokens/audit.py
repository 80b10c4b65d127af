"""`weft tokens audit`: what guards would have stopped."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from weft.cli.command import Command
from weft.cli.console import Console
from weft.core.errors import FileError, InputError
from weft.report.table import Table

if TYPE_CHECKING:
    from weft.tokens.call import Call
    from weft.tokens.guards.audit import AuditReport, Looked
    from weft.tokens.guards.transcript import Turn
    from weft.tokens.prices import PriceBook

__all__ = ["ACTION"]

_SQLITE = b"SQLite format 3\x00"
_MUCH = 1e9
"""Evidence of which no more is said. Chosen."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("paths", metavar="PATH", type=_there, nargs="+", help="a ledger, or logs that keep text")
    add("--prices", metavar="BOOK", help="genai, litellm, or a file of prices (counts tokens)")
    add("--by", default="all", metavar="KEY", help="all, agent, payer, session or model (all)")
    add("--before", metavar="PATH", type=_there, help="a ledger of a time when all was well")
    add("--share", type=float, default=0.5, metavar="X", help="or: of the calls, the first (0.5)")
    add("--level", type=float, default=0.01, metavar="X", help="chance of a false alarm (0.01)")
    add("--tolerance", type=float, metavar="X", help="times the speed before that is fine (1.5)")
    add(
        "--again",
        metavar="TOOL=X",
        action="append",
        default=[],
        help="chance that a tool is called once more for the same; high if it is polled; repeat",
    )
    add(
        "--encoder",
        metavar="[MODEL=]NAME",
        action="append",
        default=[],
        help="gpt-4*=o200k_base, or a tokenizer.json: looks at billed tokens; repeat for more",
    )
    add("--honest", type=float, metavar="X", help="share of tokens beyond the encoder's (0.01)")
    add("--overhead", type=int, default=0, metavar="N", help="billed tokens that are no text (0)")


def _there(text: str) -> Path:
    path = Path(text)
    try:
        got = "" if path.exists() else f"no {path}"
    except OSError as error:
        got = f"{path}: {error.strerror}"
    if got:
        raise FileError(need="a ledger, or logs", got=got, hint="weft tokens ingest makes a ledger")
    return path


def _execute(args: argparse.Namespace, console: Console) -> None:
    from weft.tokens.prices import open_book

    if not 0.0 < args.level < 1.0:
        raise InputError(
            need="a level between 0 and 1", got=f"{args.level}", hint="--level 0.01 is usual"
        )
    _require(args)
    book = None if args.prices is None else open_book(args.prices)
    report = _report(args, book, console)
    _print(report, console)
    console.result(_plain(report))


def _require(args: argparse.Namespace) -> None:
    """See that numbers are some, also where there is nothing that they would be used for."""
    for name, least, most, what in (
        ("tolerance", 1.0, 1e6, "times the speed before that is fine, from 1 on"),
        ("honest", 0.0, 1.0, "a share of tokens from 0 to 1"),
        ("overhead", 0, 10**9, "a number of tokens from 0 on"),
    ):
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            raise InputError(need=what, got=f"--{name} {value}", hint="leave it out")


def _report(args: argparse.Namespace, book: PriceBook | None, console: Console) -> AuditReport:
    from weft.tokens.guards.audit import (
        AuditReport,
        audit_bills,
        audit_burn,
        audit_cycles,
        spent_on,
    )
    from weft.tokens.guards.breaker import TOLERANCE
    from weft.tokens.guards.encoders import open_encoder
    from weft.tokens.guards.tokenisation import HONEST

    encoders = [_named(own) for own in args.encoder]
    again = _again(args.again)
    calls, turns = _read(args.paths, console)
    before = () if args.before is None else _read([args.before], console)[0]
    spent = spent_on([*before, *calls], book)
    unit = "tokens" if book is None else "usd"
    guards: list[Looked] = [
        audit_burn(
            calls,
            spent,
            unit=unit,
            by=args.by,
            before=before,
            share=args.share,
            level=args.level,
            tolerance=TOLERANCE if args.tolerance is None else args.tolerance,
        )
    ]
    if turns is not None:
        guards.append(audit_cycles(turns, spent, unit=unit, again=again, level=args.level))
    for pattern, name in encoders:
        bills = audit_bills(
            turns or [],
            spent,
            open_encoder(name),
            unit=unit,
            models=lambda model, pattern=pattern: fnmatchcase(model, pattern),
            honest=HONEST if args.honest is None else args.honest,
            overhead=args.overhead,
            level=args.level / len(encoders),
        )
        guards.append(bills)
    source = ", ".join(map(str, args.paths))
    return AuditReport(source=source, calls=len(calls), unit=unit, guards=tuple(guards))


def _named(text: str) -> tuple[str, str]:
    pattern, equals, name = text.rpartition("=")
    return (pattern if equals else "*"), name


def _again(words: Sequence[str]):  # noqa: ANN202 - of a package that is loaded late
    from weft.tokens.guards.cycles import Again

    found: dict[str, float] = {}
    for word in words:
        tool, _, chance = word.rpartition("=")
        try:
            found[tool] = float(chance)
        except ValueError:
            tool = ""
        if not tool:
            raise InputError(
                need="a tool and a chance", got=repr(word), hint="--again get_status=0.95"
            )
    return Again(tools=found)


def _read(paths: Sequence[Path], console: Console) -> tuple[list[Call], list[Turn] | None]:
    """Calls in order, and turns where these are logs."""
    from weft.tokens.guards.transcript import read_turns
    from weft.tokens.ledger import Ledger, ingest

    ledgers = [path for path in paths if _is_database(path)]
    if ledgers and len(paths) > 1:
        raise InputError(
            need="one ledger, or logs",
            got=", ".join(map(str, paths)),
            hint="weft tokens ingest adds logs to a ledger",
        )
    if ledgers:
        with Ledger(ledgers[0]) as ledger:
            return list(ledger.calls()), None
    with Ledger(":memory:") as ledger:
        done = ingest(ledger, paths, processes=1)
        if done.quarantined:
            bad = ledger.quarantine(1)[0]
            records = "1 record" if done.quarantined == 1 else f"{done.quarantined} records"
            console.warn(f"{records} could not be read; {bad.path}, line {bad.line}: {bad.reason}")
        return list(ledger.calls()), read_turns(paths)


def _is_database(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def _print(report: AuditReport, console: Console) -> None:
    from weft.tokens.guards.audit import moment

    found = report.findings
    count = f"{len(found)} finding{'' if len(found) == 1 else 's'}"
    console.line(f"{count} in {report.calls} calls of {report.source}")
    console.line()
    rows = tuple(
        (
            own.guard,
            own.where,
            moment(own.at),
            f"{_short(own.evidence)} of {own.needed:.3g}",
            f"{own.after:.4g} {own.unit}",
            own.said,
        )
        for own in found
    )
    if rows:
        columns = ("guard", "where", "would have tripped", "evidence", "spent after", "what")
        console.table(Table(columns=columns, rows=rows))
        console.line()
    for guard in report.guards:
        most = "" if guard.most is None else f", at most {_short(guard.most[0])} of what is needed"
        console.line(
            f"{guard.guard}: {guard.looked} {guard.what} looked at{most};"
            f" a false alarm has a chance of {guard.level:g}"
        )
        for why, number in guard.skipped.items():
            console.line(f"  left out    {number} {why}")
    if len(report.guards) == 1:
        console.line("tool cycles, billed tokens: a ledger keeps no text; name the logs for them")


def _short(evidence: float) -> str:
    return f"{evidence:.3g}" if evidence < _MUCH else f"more than {_MUCH:.0e}"


def _plain(report: AuditReport) -> dict[str, object]:
    return {
        "source": report.source,
        "calls": report.calls,
        "unit": report.unit,
        "findings": [{**asdict(own), "facts": dict(own.facts)} for own in report.findings],
        "guards": [
            {
                "guard": own.guard,
                "level": own.level,
                "looked": own.looked,
                "what": own.what,
                "most": None if own.most is None else own.most[0],
                "skipped": dict(own.skipped),
            }
            for own in report.guards
        ],
    }


ACTION = Command(
    name="audit",
    summary="find spending that ran away, tools that went in circles, tokens billed twice",
    example="example: weft tokens audit logs/ --prices genai --encoder 'gpt-4o*=o200k_base'",
    add_arguments=_add_arguments,
    execute=_execute,
)
