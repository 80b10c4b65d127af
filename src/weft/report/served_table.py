"""Prices of a served model as tables and plain data."""

from __future__ import annotations

from weft.core.units import format_bytes, format_seconds
from weft.report.table import Table
from weft.tokens.serving import BreakEven, ServedPrices

__all__ = ["served_plain", "served_tables"]

_CLASSES = (
    ("fresh input", "fresh"),
    ("cached input", "cached"),
    ("output", "output"),
)


def served_tables(prices: ServedPrices, even: BreakEven | None = None) -> tuple[Table, ...]:
    """Prices by class, what they rest on, and where an own server pays."""
    tables = (_price_table(prices), _basis_table(prices))
    return tables if even is None else (*tables, _even_table(prices, even))


def _price_table(prices: ServedPrices) -> Table:
    full = prices.full
    rows = [
        (
            name,
            _usd(prices.usd_per_million(getattr(full, f"{key}_s"), full=True)),
            _usd(prices.usd_per_million(getattr(full, f"{key}_s"))),
            _ratio(getattr(full, f"{key}_s"), full.fresh_s),
            _usd(prices.usd_per_million(getattr(full, f"{key}_part_s"))),
        )
        for name, key in _CLASSES
    ]
    hour = 3600.0 * full.held_s
    rows.append(
        (
            "kept in memory for an hour",
            _usd(prices.usd_per_million(hour, full=True)),
            _usd(prices.usd_per_million(hour)),
            _ratio(hour, full.fresh_s),
            "",
        )
    )
    plan = prices.plan
    devices = f"{plan.devices} devices" if plan.devices > 1 else "a device"
    return Table(
        caption=f"{plan.decoder.name} on {devices} of {plan.machine.name}",
        columns=(
            "a million tokens more",
            "full load [usd]",
            "as it arrives [usd]",
            "of fresh",
            "part of the bill [usd]",
        ),
        rows=tuple(rows),
    )


def _basis_table(prices: ServedPrices) -> Table:
    full, plan, steps = prices.full, prices.plan, prices.steps
    limits = ", ".join(f"{name} ({share:.0%})" for name, share in full.binding[:2])
    return Table(
        columns=("what", "is"),
        rows=(
            ("an hour of a server", f"{3600 * plan.usd_per_s:.2f} usd, {plan.source}"),
            ("weights on a device", format_bytes(steps.weight_bytes)),
            ("tokens in its memory", f"{steps.times.cache_tokens:,}"),
            ("a step", f"{format_seconds(1.0 / full.steps_per_s)}, {full.answered:.0f} answered"),
            ("what limits", limits),
            ("steps as lines, off", f"{steps.farthest:.1%} at most"),
            ("most requests of a server", f"{1.0 / full.server_s:.2f} /s"),
            ("requests", f"{prices.rate:.2f} /s, {prices.peak:.2f} /s in the busiest minutes"),
            ("servers", f"{prices.servers}, {prices.utilisation:.0%} of the time at work"),
            ("a mean request", f"{_usd(prices.usd_per_request)} usd"),
        ),
    )


def _even_table(prices: ServedPrices, even: BreakEven) -> Table:
    low, at, high = even.utilisation
    pays = "pays" if prices.utilisation > at else "does not pay"
    return Table(
        caption="beside the list price",
        columns=("what", "is"),
        rows=(
            ("an own server pays", f"above {at:.0%} at work ({low:.0%} to {high:.0%})"),
            ("which is", f"{even.requests_per_s:.3g} requests a second for each"),
            ("as it arrives", f"{pays}, at {prices.utilisation:.0%}"),
        ),
    )


def served_plain(prices: ServedPrices, even: BreakEven | None = None) -> dict[str, object]:
    """All figures for JSON."""
    full = prices.full
    plain: dict[str, object] = {
        "model": prices.plan.decoder.name,
        "machine": prices.plan.machine.name,
        "devices": prices.plan.devices,
        "usd_per_million": {
            key: {
                "full": prices.usd_per_million(getattr(full, f"{key}_s"), full=True),
                "arriving": prices.usd_per_million(getattr(full, f"{key}_s")),
                "part": prices.usd_per_million(getattr(full, f"{key}_part_s")),
            }
            for _, key in _CLASSES
        },
        "usd_per_million_held_hours": prices.usd_per_million(3600.0 * full.held_s, full=True),
        "usd_per_request": prices.usd_per_request,
        "utilisation": prices.utilisation,
        "servers": prices.servers,
        "requests_per_s": prices.rate,
        "steps_per_s": full.steps_per_s,
        "answered": full.answered,
        "binding": dict(full.binding),
        "lines_off": prices.steps.farthest,
        "cache_tokens": prices.steps.times.cache_tokens,
    }
    if even is not None:
        plain["break_even_utilisation"] = list(even.utilisation)
        plain["break_even_requests_per_s"] = even.requests_per_s
    return plain


def _usd(value: float) -> str:
    return f"{value:.4g}"


def _ratio(value: float, base: float) -> str:
    return f"{value / base:.3g}" if base else ""
