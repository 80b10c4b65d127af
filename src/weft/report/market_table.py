"""Tolls, and ways to share a server, as sentences and tables."""

from __future__ import annotations

from dataclasses import asdict

from weft.report.table import Table
from weft.tokens.macro.comparison import Comparison
from weft.workflow.tolls import TollReport

__all__ = [
    "best_name",
    "market_plain",
    "market_sentence",
    "market_table",
    "toll_sentence",
    "toll_table",
]

_MILLION = 1e6


def toll_sentence(report: TollReport) -> str:
    """The result in a sentence.

    Args:
        report: tolls.
    """
    costs = f"A second of delay costs {report.delay_usd_per_s:g} usd."
    if report.rate != report.rate:
        return (
            f"{report.requests:,} requests of {report.source} came at one moment, so that they have"
            f" sizes and no rate. {costs}"
        )
    kept = (
        "which the server keeps up with"
        if report.load < 1.0
        else "more than the server keeps up with"
    )
    return (
        f"{report.requests:,} requests of {report.source} came at {report.rate:.3g} a second: "
        f"a load of {report.load:.3g}, {kept}. {costs}"
    )


def toll_table(report: TollReport) -> Table:
    """A row for each load.

    Args:
        report: tolls.
    """
    return Table(
        columns=(
            "load",
            "requests/s",
            "delay [s]",
            "token each [ms]",
            "toll of a request [usd]",
            "per M fresh",
            "per M cached",
            "per M output",
        ),
        rows=tuple(
            (
                f"{own.load:.3g}",
                f"{rate:.3g}",
                f"{own.delay_s:.2f}",
                f"{own.token_s * 1e3:.1f}",
                f"{own.request_usd:.2e}",
                f"{own.fresh_usd * _MILLION:.3f}",
                f"{own.cached_usd * _MILLION:.3f}",
                f"{own.output_usd * _MILLION:.3f}",
            )
            for rate, own in report.rows
        ),
    )


def best_name(found: Comparison) -> str:
    """The mechanism of the most welfare, on average."""
    return max(found.runs, key=lambda name: found.interval(name, "welfare_usd").value)


def market_sentence(found: Comparison) -> str:
    """The result in a sentence.

    Args:
        found: mechanisms side by side.
    """
    best, first = best_name(found), next(iter(found.runs))
    if best == first:
        return f"At a load of {found.load:g} nothing does better than {first}."
    gain = found.gain(best, first)
    sure = "" if gain.low > 0.0 else ", which is not told from nothing"
    return (
        f"At a load of {found.load:g}, {best} does most good: {gain.value:+.0%} over {first}{sure}."
    )


def market_table(found: Comparison) -> Table:
    """A row for each mechanism, with 95 % intervals over draws.

    Args:
        found: mechanisms side by side.
    """
    rows: list[tuple[str, ...]] = []
    first = next(iter(found.runs))
    for name in found.runs:
        welfare, gain = found.interval(name, "welfare_usd"), found.gain(name, first)
        numbers = {
            what: found.interval(name, what).value
            for what in ("revenue_usd", "delay_s", "late_s", "sent", "work", "fairness")
        }
        rows.append(
            (
                name,
                str(welfare),
                ""
                if name == first or gain.value != gain.value
                else f"{gain.value:+.1%} [{gain.low:+.1%}, {gain.high:+.1%}]",
                f"{numbers['revenue_usd']:.3g}",
                f"{numbers['delay_s']:.2f}",
                f"{numbers['late_s']:.1f}",
                f"{numbers['sent']:.0%}",
                f"{numbers['work']:.2f}",
                f"{numbers['fairness']:.3f}",
            )
        )
    return Table(
        columns=(
            "mechanism",
            "welfare [usd/s]",
            f"over {first}",
            "revenue [usd/s]",
            "delay [s]",
            "p95 [s]",
            "sent",
            "busy",
            "fairness",
        ),
        rows=tuple(rows),
    )


def market_plain(found: Comparison) -> dict[str, object]:
    """The same as plain JSON values, with every run.

    Args:
        found: mechanisms side by side.
    """
    return {
        "load": found.load,
        "runs": {name: [asdict(run) for run in runs] for name, runs in found.runs.items()},
        "welfare_usd": {name: found.interval(name, "welfare_usd").value for name in found.runs},
    }
