"""What tokens cost: exact where counts and prices are known, else between two bounds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from weft.tokens.classes import INPUT, OUTPUT, TokenClass
from weft.tokens.count import Count
from weft.tokens.money import Money, usd
from weft.tokens.prices.rates import Rates, Step
from weft.tokens.usage import Usage

__all__ = ["FREE", "UNPRICED", "Cost", "cost", "price_at", "side_price"]


@dataclass(frozen=True, slots=True)
class Cost:
    """From `low` to `high` [USD]; `high` is None where something has no price, or no limit.

    Example:
        >>> Cost(Decimal("0.25"), Decimal("0.5")) + Cost(Decimal(1), None)
        at least 1.25 usd
    """

    low: Decimal
    high: Decimal | None

    def __add__(self, other: Cost) -> Cost:
        if self.high is None or other.high is None:
            return Cost(self.low + other.low, None)
        return Cost(self.low + other.low, self.high + other.high)

    @property
    def is_exact(self) -> bool:
        """Whether both ends are the same."""
        return self.high == self.low

    def money(self) -> tuple[Money, Money | None]:
        """Both ends, to the billionth."""
        return usd(self.low), None if self.high is None else usd(self.high, up=True)

    def __repr__(self) -> str:
        low = usd(self.low)
        if self.high is None:
            return f"at least {low}"
        return f"{low}" if self.is_exact else f"{low} to {usd(self.high)}"


FREE = Cost(Decimal(0), Decimal(0))
UNPRICED = Cost(Decimal(0), None)
"""What nobody knows the price of."""


def cost(usage: Usage, rates: Rates, *, size: Count | None = None) -> Cost:
    """Price a usage.

    A sum that is known although its classes are not is kept to: of 1000 tokens read, cached or not,
    all may have cost the one price or the other, but each of them one.

    Args:
        usage: of a call, or of several.
        rates: prices of their model.
        size: what each call read, which prices may depend on; that of `usage` if None, as for one
            call [tokens].

    Returns:
        The least and the most that it can have cost.

    Example:
        >>> cents = {TokenClass.FRESH: Decimal("0.03"), TokenClass.CACHE_READ: Decimal("0.01")}
        >>> rates = Rates(provider="", model="m", steps=(Step(usd=cents),))
        >>> cost(Usage.of(fresh=2, cache_read=1), rates)
        0.07 usd
        >>> split = Count(0, 100)
        >>> cost(Usage.of(fresh=split, cache_read=split, input=100), rates)
        1 usd to 3 usd
    """
    if not rates.is_known:
        return UNPRICED if usage.counts else FREE
    found = [price_at(usage, step) for step in _steps(rates, usage.input if size is None else size)]
    highs = [own.high for own in found]
    return Cost(
        min(own.low for own in found),
        None if None in highs else max(high for high in highs if high is not None),
    )


def _steps(rates: Rates, size: Count) -> Iterable[Step]:
    """Steps that a call may be at, by what is known of its input."""
    first = rates.steps.index(rates.step(size.low))
    last = len(rates.steps) - 1 if size.high is None else rates.steps.index(rates.step(size.high))
    return rates.steps[first : last + 1]


def price_at(usage: Usage, step: Step) -> Cost:
    """Price a usage at one step."""
    return side_price(usage, step, INPUT) + side_price(usage, step, OUTPUT)


def side_price(usage: Usage, step: Step, leaves: frozenset[TokenClass]) -> Cost:
    """Price what was read, or what was generated, at one step.

    Args:
        usage: of calls.
        step: prices.
        leaves: INPUT or OUTPUT.
    """
    total = usage.input if leaves is INPUT else usage.output
    low = high = Decimal(0)
    unpriced, open_ended = False, False
    loose: list[tuple[Decimal, int | None]] = []
    least = 0
    for leaf, own in usage.counts.items():
        if leaf not in leaves:
            continue
        price = step.price(leaf)
        unpriced = unpriced or price is None
        each = price or Decimal(0)
        low += own.low * each
        least += own.low
        if not own.is_exact:
            loose.append((each, None if own.high is None else own.high - own.low))
    high = low
    if loose:
        low += _filled(sorted(loose, key=lambda entry: entry[0]), total.low - least)
        open_ended = total.high is None
        if total.high is not None:
            dearest = sorted(loose, key=lambda entry: entry[0], reverse=True)
            high += _filled(dearest, total.high - least)
    return Cost(low, None if unpriced or open_ended else high)


def _filled(loose: Iterable[tuple[Decimal, int | None]], count: int) -> Decimal:
    """Price of so many tokens, taken from classes in order, of each as many as there may be."""
    price = Decimal(0)
    for each, room in loose:
        taken = count if room is None else min(count, room)
        price += taken * each
        count -= taken
    return price
