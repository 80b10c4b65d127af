"""What calls add up to, by any of the things that a ledger knows of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

from weft.core.errors import InputError
from weft.tokens.classes import TokenClass
from weft.tokens.count import Count
from weft.tokens.ledger.ledger import Ledger
from weft.tokens.ledger.schema import COUNTS, WORDS
from weft.tokens.prices.rates import PERIOD_S
from weft.tokens.usage import Usage

__all__ = [
    "KEYS",
    "PRICED_BY",
    "Group",
    "Priced",
    "price_periods",
    "priced_totals",
    "totals",
    "whole",
]

KEYS = (*(name for name in WORDS if name not in ("id", "parent")), "day")
"""What calls can be grouped by; `day` is that of UTC."""

PRICED_BY = ("provider", "model", "tier")
_PERIOD = f"CAST(at AS INTEGER) / {PERIOD_S}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Calls that have a key in common.

    Attributes:
        key: values of what they were grouped by, in that order.
        calls: how many.
        usage: what they used in all.
        first, last: when the first and the last began [s since 1970].
    """

    key: tuple[str, ...]
    calls: int
    usage: Usage
    first: float
    last: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """Calls of a group that are priced alike: one model, tier, time, and step of prices.

    Attributes:
        provider, model, tier: of all of them.
        at: a time at which their prices hold [s since 1970].
        size: what each of them may have read, as far as prices depend on it [tokens].
    """

    group: Group
    provider: str
    model: str
    tier: str
    at: float
    size: Count


def totals(ledger: Ledger, by: Sequence[str] = ()) -> list[Group]:
    """Calls and tokens by some keys, most calls first.

    Args:
        ledger: to read.
        by: names of KEYS; none for one group of all.

    Raises:
        InputError: there is no such key.
    """
    columns = [_key(name) for name in by]
    groups = [_group(row[: len(by)], row[len(by) :]) for row in _grouped(ledger, columns, columns)]
    return sorted(groups, key=lambda group: (-group.calls, group.key))


def priced_totals(ledger: Ledger, by: Sequence[str], thresholds: Iterable[int]) -> Iterator[Priced]:
    """Groups, cut so that all calls of a piece have the same prices.

    What is unknown of them is unknown in the same way: bounds of the sum are sums of bounds.

    Args:
        ledger: to read.
        by: names of KEYS.
        thresholds: sizes of the input above which prices may differ [tokens].

    Raises:
        InputError: there is no such key.
    """
    sizes = sorted(thresholds)
    over = " + ".join(f"(input > {size})" for size in sizes) or "0 + 0"
    over_at_most = " + ".join(f"(input + input_more > {size})" for size in sizes) or "0 + 0"
    unknown = " + ".join(
        f"(({leaf.value}_more IS NOT 0) << {place})" for place, leaf in enumerate(TokenClass)
    )
    shown = [*(_key(name) for name in by), *PRICED_BY, _PERIOD]
    shown += [over, f"COALESCE({over_at_most}, {len(sizes)})"]
    for row in _grouped(ledger, shown, [*shown, unknown]):
        *key, provider, model, tier, period, least, most = row[: len(shown)]
        first, last = int(str(least)), int(str(most))
        yield Priced(
            group=_group(key, row[len(shown) :]),
            provider=str(provider),
            model=str(model),
            tier=str(tier),
            at=float(str(period)) * PERIOD_S,
            size=Count(
                sizes[first - 1] + 1 if first else 0, sizes[last] if last < len(sizes) else None
            ),
        )


def price_periods(ledger: Ledger) -> Iterator[tuple[str, str, str, float]]:
    """Provider, model, tier and time of all that is priced by itself, see `Priced`."""
    query = f"SELECT DISTINCT {', '.join(PRICED_BY)}, {_PERIOD} FROM calls"
    for provider, model, tier, period in ledger.connection.execute(query):
        yield str(provider), str(model), str(tier), float(str(period)) * PERIOD_S


def _key(name: str) -> str:
    if name not in KEYS:
        raise InputError(
            need=f"one of {', '.join(KEYS)}", got=repr(name), hint="--by agent,model, for example"
        )
    return "date(at, 'unixepoch')" if name == "day" else name


def _grouped(
    ledger: Ledger, shown: Sequence[str], cuts: Sequence[str]
) -> Iterator[tuple[object, ...]]:
    sums = ["COUNT(*)", "MIN(at)", "MAX(at)"]
    for name in COUNTS:
        most = f"CASE WHEN COUNT({name}_more) = COUNT(*) THEN SUM({name} + {name}_more) END"
        sums += [f"SUM({name})", most]
    query = f"SELECT {', '.join([*shown, *sums])} FROM calls"
    if cuts:
        query += f" GROUP BY {', '.join(cuts)}"
    for row in ledger.connection.execute(query):
        if row[len(shown)]:  # without a call, all of them are one empty group
            yield row


def _group(key: Sequence[object], row: Sequence[object]) -> Group:
    calls, first, last, *sums = row
    counts: dict[TokenClass, Count] = {}
    for leaf, low, high in zip(TokenClass, sums[4::2], sums[5::2], strict=True):
        if high != 0:
            counts[leaf] = _count(low, high)
    return Group(
        key=tuple("" if value is None else str(value) for value in key),
        calls=cast("int", calls),
        first=cast("float", first),
        last=cast("float", last),
        usage=Usage(counts=counts, input=_count(*sums[:2]), output=_count(*sums[2:4])),
    )


def _count(low: object, high: object) -> Count:
    return Count(cast("int", low), cast("int | None", high))


def whole(groups: Iterable[Group]) -> Group | None:
    """Groups as one; None where there are none."""
    together: Group | None = None
    for own in groups:
        if together is None:
            together = replace(own, key=())
        else:
            together = Group(
                key=(),
                calls=together.calls + own.calls,
                usage=together.usage + own.usage,
                first=min(together.first, own.first),
                last=max(together.last, own.last),
            )
    return together
