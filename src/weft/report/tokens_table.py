"""A ledger's figures as tables, sentences and plain data."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from weft.report.table import Table
from weft.tokens.count import Count
from weft.tokens.prices.cost import Cost
from weft.tokens.prices.passing import PassCost
from weft.workflow.tokens_report import Spent, TokensReport

__all__ = [
    "caveats",
    "format_cost",
    "format_tokens",
    "printable",
    "quarantine_table",
    "report_plain",
    "report_sentence",
    "skew_table",
    "spent_table",
    "unpriced_table",
]


def format_tokens(count: Count) -> str:
    """A count with three digits or all of them, and both ends where they differ.

    Example:
        >>> format_tokens(Count(512, 512)), format_tokens(Count(1_234_567, None))
        ('512', '>= 1.23 M')
        >>> format_tokens(Count(0, 20_000))
        '0 to 20.0 k'
    """
    if count.high is None:
        return f">= {_scaled(count.low)}"
    if count.is_exact:
        return _scaled(count.low)
    return f"{_scaled(count.low)} to {_scaled(count.high)}"


def printable(text: str) -> str:
    """Text of a log without what terminals take for commands, and line breaks in it.

    Example:
        >>> printable("a" + chr(27) + "[31m") == "a" + chr(92) + "x1b[31m"
        True
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _scaled(number: float) -> str:
    if number < 10_000:
        return f"{number:g}"
    for unit in ("k", "M", "G"):
        number /= 1000.0
        if number < 999.5:
            return (
                f"{number:.3g} {unit}"
                if number >= 99.95
                else f"{number:.{_places(number)}f} {unit}"
            )
    return f"{number / 1000.0:.3g} T"


def _places(number: float) -> int:
    return 1 if number >= 9.995 else 2


def format_cost(cost: Cost | None) -> str:
    """Dollars, with both ends where they differ.

    Example:
        >>> format_cost(Cost(Decimal("0.037"), Decimal("0.037")))
        '$0.0370'
        >>> format_cost(Cost(Decimal(12), None))
        '>= $12.00'
    """
    if cost is None:
        return ""
    if cost.high is None:
        return f">= {_dollars(cost.low)}"
    low, high = _dollars(cost.low), _dollars(cost.high)
    return low if low == high else f"{low} to {high}"


def _bare(text: str) -> str:
    """Money for a column that says its currency."""
    return text.replace("$", "")


def _dollars(amount: Decimal | float) -> str:
    size = abs(amount)
    if size >= 1 or size == 0:
        return f"${amount:,.2f}"
    return f"${amount:.4f}" if size >= Decimal("0.001") else f"${amount:.3g}"


def spent_table(report: TokensReport) -> Table:
    """A row for each group, and one for all."""
    columns = [*report.by, "calls", "input", "output"]
    if report.book is not None:
        columns += ["cost [USD]", "share"]
    has_outcomes = any(row.passing is not None for row in (*report.rows, report.total) if row)
    if has_outcomes:
        columns += ["tasks passed", "cost of a pass [USD]"]
    whole = report.total.cost if report.total is not None else None
    rows = [_row(report, row, whole, has_outcomes) for row in report.rows]
    if report.total is not None and report.by:
        rows.append(_row(report, report.total, whole, has_outcomes))
    return Table(columns=tuple(columns), rows=tuple(rows))


def _row(
    report: TokensReport, row: Spent, whole: Cost | None, has_outcomes: bool
) -> tuple[str, ...]:
    key = tuple(map(printable, row.group.key)) or ("all", *("" for _ in report.by[1:]))
    cells = [*(key if report.by else ()), str(row.group.calls)]
    cells += [format_tokens(row.group.usage.input), format_tokens(row.group.usage.output)]
    if report.book is not None:
        is_known = row.cost and whole and whole.low and row.cost.is_exact and whole.is_exact
        share = f"{row.cost.low / whole.low:.1%}" if is_known and row.cost and whole else ""
        cells += [_bare(format_cost(row.cost)), share]
    if has_outcomes:
        passing = row.passing
        cells += (
            ["", ""]
            if passing is None
            else [f"{passing.passed} of {passing.tasks}", _bare(_pass(passing))]
        )
    return tuple(cells)


def _pass(passing: PassCost) -> str:
    low, high = passing.usd
    if low is None:
        return f">= {_dollars(passing.low)}"
    middle = (
        _dollars(low)
        if low == high
        else f"{_dollars(low)} to {_dollars(high)}"
        if high
        else f">= {_dollars(low)}"
    )
    ends = (
        f"{_dollars(passing.low)} to {_dollars(passing.high)}"
        if passing.high
        else f"{_dollars(passing.low)} or more"
    )
    return f"{middle} (95 %: {ends})"


def report_sentence(report: TokensReport) -> str:
    """What the ledger holds, in one sentence."""
    if report.total is None:
        return "The ledger holds no call."
    group = report.total.group
    days = f"from {_day(group.first)} to {_day(group.last)}"
    told = (
        f"{group.calls} {'call' if group.calls == 1 else 'calls'} {days} read"
        f" {format_tokens(group.usage.input)} and generated"
        f" {format_tokens(group.usage.output)} tokens"
    )
    if report.total.cost is not None:
        told += f", for {format_cost(report.total.cost)}"
    if report.total.passing is not None:
        told += f"; a task that passed cost {_pass(report.total.passing)}"
    return f"{told}."


def _day(at: float) -> str:
    try:
        return datetime.datetime.fromtimestamp(at, tz=datetime.UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{at:g} s"


def caveats(report: TokensReport) -> tuple[str, ...]:
    """What to know before the figures are believed, a line each."""
    own = report.quality
    of = f"of {own.calls} calls"
    calls = (
        (own.inexact, "how much was read or generated is known only between bounds"),
        (own.unbounded, "nothing limits how much that was"),
        (own.unsplit_input, "how much of the input came from caches is not reported"),
        (own.unsplit_output, "reasoning is not told apart from answers"),
    )
    counted = (
        (own.duplicates, "calls that were met again, counted once"),
        (own.quarantined, "records that could not be read, kept aside"),
        (own.ignored, "records about something else than a call"),
        (own.skewed, "calls with times that cannot be"),
        (sum(u.calls for u in report.unpriced), "calls without a price"),
    )
    return (
        *(f"{count} {of}: {text}" for count, text in calls if count),
        *(f"{text}: {count}" for count, text in counted if count),
    )


def quarantine_table(report: TokensReport) -> Table:
    """Examples of records that could not be read."""
    return Table(
        caption="records kept aside",
        columns=("file", "line", "why"),
        rows=tuple(
            (printable(bad.path), str(bad.line), printable(bad.reason))
            for bad in report.quality.bad
        ),
    )


def skew_table(report: TokensReport) -> Table:
    """Examples of calls whose times cannot be."""
    return Table(
        caption="times that cannot be",
        columns=("source", "call", "what"),
        rows=tuple(
            (printable(skew.source), printable(skew.id), skew.what) for skew in report.quality.skews
        ),
    )


def unpriced_table(report: TokensReport) -> Table:
    """Models without a price."""
    return Table(
        caption="no price",
        columns=("provider", "model", "tier", "calls", "why"),
        rows=tuple(
            (*map(printable, (u.provider, u.model, u.tier)), str(u.calls), printable(u.why))
            for u in report.unpriced
        ),
    )


def report_plain(report: TokensReport) -> dict[str, Any]:
    """The report as plain JSON: counts as [low, high], costs as decimal text."""
    own = report.quality
    return {
        "ledger": report.ledger,
        "by": list(report.by),
        "prices": None if report.book is None else str(report.book),
        "total": None if report.total is None else _spent_plain(report.total),
        "rows": [_spent_plain(row) for row in report.rows],
        "unpriced": [
            {
                "provider": u.provider,
                "model": u.model,
                "tier": u.tier,
                "calls": u.calls,
                "why": u.why,
            }
            for u in report.unpriced
        ],
        "quality": {
            **{
                name: getattr(own, name)
                for name in (
                    *("calls", "inexact", "unbounded", "unsplit_input", "unsplit_output"),
                    *("records", "duplicates", "ignored", "quarantined", "skewed"),
                )
            },
            "without": own.without,
            "examples": [{"path": b.path, "line": b.line, "reason": b.reason} for b in own.bad],
            "skews": [{"source": s.source, "id": s.id, "what": s.what} for s in own.skews],
        },
    }


def _spent_plain(row: Spent) -> dict[str, Any]:
    usage = row.group.usage
    return {
        "key": list(row.group.key),
        "calls": row.group.calls,
        "first_s": row.group.first,
        "last_s": row.group.last,
        "input": _ends(usage.input),
        "output": _ends(usage.output),
        "classes": {leaf.value: _ends(count) for leaf, count in usage.counts.items()},
        "cost_usd": None if row.cost is None else _decimals((row.cost.low, row.cost.high)),
        "passing": None if row.passing is None else _passing_plain(row.passing),
    }


def _passing_plain(passing: PassCost) -> dict[str, Any]:
    return {
        "tasks": passing.tasks,
        "passed": passing.passed,
        "usd": list(passing.usd),
        "interval_usd": [passing.low, passing.high],
    }


def _ends(count: Count) -> list[int | None]:
    return [count.low, count.high]


def _decimals(ends: Sequence[Decimal | None]) -> list[str | None]:
    return [None if end is None else f"{end:f}" for end in ends]
