"""Ways to share a server, side by side, on one page."""

from __future__ import annotations

from weft.core.records import Record
from weft.report.market_table import best_name, market_plain, market_sentence, market_table
from weft.report.markup import Markup
from weft.report.page import Figure, Page, Section, html_table
from weft.report.plot.bars import Bar, bar_plot
from weft.report.plot.dots import Dots, dot_plot
from weft.report.plot.scale import linear_ticks
from weft.tokens.macro.comparison import Comparison

__all__ = ["market_page"]

_TOLLS = ("posted toll", "adaptive toll")


def market_page(found: Comparison, *, source: str, requests: int) -> Page:
    """The page of a comparison.

    Args:
        found: mechanisms side by side.
        source: where the requests are from.
        requests: how many.
    """
    best = best_name(found)
    seeds = len(found.runs[best])
    return Page(
        title="market",
        kicker=f"a server that is shared: {requests:,} requests of {source}",
        sentence=market_sentence(found),
        figures=_figures(found, best),
        picture=Section(
            heading="What it is worth, to all together",
            text=(
                "Value of what was served less what its delays cost, by second; on average over "
                f"{seeds} {'draw' if seeds == 1 else 'draws'} of who sends what."
            ),
            body=_bars(found),
        ),
        sections=(
            Section(
                heading="Delay and welfare",
                text="A dot for each draw. What is free fills the server until waiting keeps away.",
                body=_dots(found),
            ),
            Section(
                heading="All of it",
                text=(
                    "With 95 % intervals over draws. Busy: seconds of work that were served, by "
                    "second. Fairness: Jain's index of the part of what they want that payers get."
                ),
                body=html_table(market_table(found)),
            ),
        ),
        sources=(("requests", source),),
        records=(Record(kind="tokens_market", fields=market_plain(found)),),
    )


def _figures(found: Comparison, best: str) -> tuple[Figure, ...]:
    first = next(iter(found.runs))
    delay = {name: found.interval(name, "delay_s").value for name in (best, first)}
    return (
        Figure(value=f"{found.load:g}", meaning="times what the server can do, if all were sent"),
        Figure(value=f"{found.gain(best, first).value:+.0%}", meaning=f"{best} over {first}"),
        Figure(value=f"{delay[best]:.1f} s", meaning=f"delay with {best}"),
        Figure(value=f"{delay[first]:.1f} s", meaning=f"delay with {first}"),
    )


def _bars(found: Comparison) -> Markup:
    bars: list[Bar] = []
    for name in found.runs:
        welfare = found.interval(name, "welfare_usd")
        style = "fill-5" if name in _TOLLS else "fill-2"
        bars.append(Bar(name=name, value=max(welfare.value, 0.0), text=str(welfare), style=style))
    longest = max(max(bar.value for bar in bars), 1e-12)
    ticks = linear_ticks(0.0, longest, unit="usd/s")
    return bar_plot(bars, ticks, title="Welfare by mechanism", x_title="welfare")


def _dots(found: Comparison) -> Markup:
    fills = ("fill-2", "fill-cfg", "fill-6", "fill-all-gather", "fill-1", "fill-5")
    kinds = [
        Dots(
            name=name,
            points=tuple((run.delay_s, run.welfare_usd) for run in runs),
            fill=fills[place % len(fills)],
        )
        for place, (name, runs) in enumerate(found.runs.items())
    ]
    return dot_plot(
        kinds,
        title="Welfare over delay",
        x_title="delay [s]",
        y_title="welfare [usd/s]",
    )
