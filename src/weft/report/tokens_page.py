"""A page that shows where tokens and money went."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from weft.core.records import Record
from weft.report.markup import Markup, tag
from weft.report.page import Figure, Page, Section, html_table
from weft.report.plot.scale import linear_ticks
from weft.report.table import Table
from weft.report.tokens_plot import Piece, Stack, stack_plot
from weft.report.tokens_table import (
    caveats,
    format_cost,
    format_tokens,
    quarantine_table,
    report_plain,
    report_sentence,
    skew_table,
    spent_table,
    unpriced_table,
)
from weft.tokens.classes import TokenClass
from weft.workflow.tokens_report import Spent, TokensReport

__all__ = ["tokens_page"]

_BARS = 16
"""Groups that are drawn; all of them are in the table. Chosen."""

_KINDS: tuple[tuple[str, str, tuple[TokenClass, ...]], ...] = (
    ("input", "fill-1", (TokenClass.FRESH,)),
    ("read from caches", "fill-cfg", (TokenClass.CACHE_READ, TokenClass.AUDIO_CACHE_READ)),
    ("written to caches", "fill-5", (TokenClass.CACHE_WRITE_5M, TokenClass.CACHE_WRITE_1H)),
    (
        "tools, audio and images",
        "fill-all-to-all",
        (TokenClass.TOOL, TokenClass.AUDIO_IN, TokenClass.IMAGE_IN, TokenClass.VIDEO_IN),
    ),
    ("answers", "fill-6", (TokenClass.TEXT, TokenClass.AUDIO_OUT, TokenClass.IMAGE_OUT)),
    ("reasoning", "fill-4", (TokenClass.REASONING,)),
    ("rejected predictions", "fill-3", (TokenClass.REJECTED,)),
)
"""What is shown of a bar, its colour, and the classes in it."""
_EITHER = ("answers or reasoning", "fill-all-gather")
_OPEN = ("not told apart", "fill-2")


def tokens_page(report: TokensReport) -> Page:
    """The figures of a ledger.

    Args:
        report: they.
    """
    return Page(
        title="tokens",
        kicker=f"where tokens go: {report.ledger}",
        sentence=report_sentence(report),
        figures=_figures(report),
        picture=_picture(report),
        sections=tuple(_sections(report)),
        sources=() if report.book is None else (("prices", str(report.book)),),
        records=(Record(kind="tokens_report", fields=report_plain(report)),),
    )


def _figures(report: TokensReport) -> tuple[Figure, ...]:
    if report.total is None:
        return ()
    usage = report.total.group.usage
    figures = [Figure(value=str(report.total.group.calls), meaning="calls")]
    if report.total.cost is not None:
        figures.append(Figure(value=format_cost(report.total.cost), meaning="in all"))
    cached = usage[TokenClass.CACHE_READ]
    if cached.is_exact and usage.input.is_exact and usage.input.low:
        share = cached.low / usage.input.low
        figures.append(Figure(value=f"{share:.0%}", meaning="of the input from caches"))
    reasoned = usage[TokenClass.REASONING]
    if reasoned.is_exact and usage.output.is_exact and usage.output.low:
        share = reasoned.low / usage.output.low
        figures.append(Figure(value=f"{share:.0%}", meaning="of the output is reasoning"))
    passing = report.total.passing
    if passing is not None and passing.usd[0] is not None:
        figures.append(Figure(value=f"${passing.usd[0]:.3g}", meaning="for a task that passed"))
    return tuple(figures)


def _picture(report: TokensReport) -> Section:
    if not report.rows:
        return Section(heading="Nothing to show", text="The ledger is empty.")
    is_priced = report.book is not None
    shown = report.rows[:_BARS]
    stacks = [_stack(row, is_priced=is_priced) for row in shown]
    longest = max(max(stack.length for stack in stacks), 1e-12)
    what = "Money" if is_priced else "Tokens"
    left = len(report.rows) - len(shown)
    more = f" {left} more are in the table." if left > 0 else ""
    return Section(
        heading=f"{what} by {', '.join(report.by) or 'class'}",
        text=f"A bar for each, cut by class of tokens.{more}",
        body=stack_plot(
            stacks,
            linear_ticks(0.0, longest, unit="USD" if is_priced else "tokens"),
            title=f"{what} by class",
            x_title="cost" if is_priced else "read and generated",
        ),
    )


def _stack(row: Spent, *, is_priced: bool) -> Stack:
    usage = row.group.usage
    sizes: Mapping[TokenClass, Decimal | int]
    if is_priced:
        sizes = row.by_class
        least, most = (row.cost.low, row.cost.high) if row.cost else (Decimal(0), None)
        text = format_cost(row.cost)
    else:
        sizes = {leaf: own.low for leaf, own in usage.counts.items()}
        both = usage.input + usage.output
        least, most, text = Decimal(both.low), both.high, format_tokens(both)
    shown = [
        (name, style, sum(sizes.get(leaf, 0) for leaf in leaves)) for name, style, leaves in _KINDS
    ]
    if is_priced:
        shown.append((*_EITHER, row.either))
    rest = (least if most is None else Decimal(most)) - sum(size for _, _, size in shown)
    shown.append((*_OPEN, max(Decimal(0), rest)))
    pieces = [Piece(name=name, style=style, value=float(size)) for name, style, size in shown]
    return Stack(
        name=" / ".join(filter(None, row.group.key)) or "all", pieces=tuple(pieces), text=text
    )


def _sections(report: TokensReport) -> list[Section]:
    sections = [Section(heading="All of them", body=html_table(spent_table(report)))]
    lines = caveats(report)
    if lines:
        body = tag("ul", *(tag("li", line) for line in lines))
        sections.append(Section(heading="Before these figures are believed", body=body))
    for heading, table in (
        ("Models without a price", unpriced_table(report)),
        ("Records that could not be read", quarantine_table(report)),
        ("Times that cannot be", skew_table(report)),
    ):
        if table.rows:
            sections.append(Section(heading=heading, body=_table(table)))
    return sections


def _table(table: Table) -> Markup:
    return html_table(Table(columns=table.columns, rows=table.rows))
