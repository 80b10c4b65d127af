"""Where tokens and money went: a ledger, priced by a book."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from weft.tokens.classes import OUTPUT, TokenClass
from weft.tokens.count import Count
from weft.tokens.ledger.ledger import Ledger
from weft.tokens.ledger.outcomes import outcomes
from weft.tokens.ledger.quality import Quality, quality
from weft.tokens.ledger.totals import (
    PRICED_BY,
    Group,
    price_periods,
    priced_totals,
    totals,
    whole,
)
from weft.tokens.prices.cost import FREE, Cost, cost, side_price
from weft.tokens.prices.passing import PassCost, pass_cost
from weft.tokens.prices.rates import BookSource, PriceBook, Rates
from weft.tokens.usage import Usage

__all__ = ["Spent", "TokensReport", "Unpriced", "tokens_report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What calls with a key in common used, and cost.

    Attributes:
        group: the calls.
        cost: of all of them; None where no book was asked.
        by_class: of what is known to have been used of each class, the least that it cost [USD].
        either: what answers and reasoning cost beyond that, where they are not told apart [USD].
        passing: cost of a passed task, where outcomes are known of tasks that ended here.
    """

    group: Group
    cost: Cost | None = None
    by_class: Mapping[TokenClass, Decimal]
    either: Decimal = Decimal(0)
    passing: PassCost | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpriced:
    """Calls of a model that a book has no price of, and why."""

    provider: str
    model: str
    tier: str
    calls: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensReport:
    """A ledger's figures.

    Attributes:
        ledger: the file.
        by: what the rows are grouped by.
        rows: dearest first, or most tokens first where nothing is priced.
        total: of all.
        book: where prices are from; None where no book was asked.
        unpriced: models without a price.
        quality: what to know before the figures are believed.
    """

    ledger: str
    by: tuple[str, ...]
    rows: tuple[Spent, ...]
    total: Spent | None
    book: BookSource | None
    unpriced: tuple[Unpriced, ...]
    quality: Quality


def tokens_report(
    ledger: Ledger, *, by: Sequence[str] = ("provider", "model"), book: PriceBook | None = None
) -> TokensReport:
    """Sum up a ledger.

    Args:
        ledger: to read.
        by: names of `weft.tokens.ledger.totals.KEYS`.
        book: to price by; None for tokens alone.

    Raises:
        InputError: there is no such key.
    """
    pricing = None if book is None else _Pricing(ledger, book)
    costs = {} if pricing is None else pricing.costs(by)
    passing = {} if pricing is None else pricing.passing(by)
    groups = totals(ledger, by)
    rows = [_spent(group, costs.get(group.key), passing.get(group.key)) for group in groups]
    everything = whole(groups)
    spent = None if pricing is None else _summed(costs.values())
    passed = None if pricing is None else pricing.passing(()).get(())
    return TokensReport(
        ledger=ledger.path,
        by=tuple(by),
        rows=tuple(sorted(rows, key=_weight, reverse=True)),
        total=None if everything is None else _spent(everything, spent, passed),
        book=None if book is None else book.source,
        unpriced=() if pricing is None else pricing.unpriced(),
        quality=quality(ledger),
    )


@dataclass(slots=True)
class _Sum:
    """Cost of some calls, and where it went, as it is added up."""

    cost: Cost = FREE
    by_class: dict[TokenClass, Decimal] = field(default_factory=dict[TokenClass, Decimal])
    either: Decimal = Decimal(0)

    def add(self, other: _Sum) -> None:
        self.cost += other.cost
        for leaf, spent in other.by_class.items():
            self.by_class[leaf] = self.by_class.get(leaf, Decimal(0)) + spent
        self.either += other.either


def _summed(sums: Iterable[_Sum]) -> _Sum:
    whole = _Sum()
    for own in sums:
        whole.add(own)
    return whole


def _piece(usage: Usage, rates: Rates, size: Count) -> _Sum:
    """Calls that are priced alike."""
    priced = _Sum(cost=cost(usage, rates, size=size))
    if rates.is_known:
        step = rates.step(size.low)
        for leaf, own in usage.counts.items():
            priced.by_class[leaf] = own.low * (step.price(leaf) or Decimal(0))
        generated = side_price(usage, step, OUTPUT).low
        known = (spent for leaf, spent in priced.by_class.items() if leaf in OUTPUT)
        priced.either = generated - sum(known, Decimal(0))
    return priced


def _spent(group: Group, priced: _Sum | None, passing: PassCost | None) -> Spent:
    if priced is None:
        return Spent(group=group, by_class={}, passing=passing)
    return Spent(
        group=group,
        cost=priced.cost,
        by_class=priced.by_class,
        either=priced.either,
        passing=passing,
    )


def _weight(row: Spent) -> tuple[Decimal, int]:
    usage = row.group.usage
    return (row.cost.low if row.cost else Decimal(0), usage.input.low + usage.output.low)


class _Pricing:
    """A ledger's calls at a book's prices."""

    def __init__(self, ledger: Ledger, book: PriceBook) -> None:
        self._ledger, self._book = ledger, book
        self._rates: dict[tuple[str, str, str, float], Rates] = {}
        self._tasks: dict[tuple[str, ...], _Sum] | None = None
        # Steps of any of the models; a call is then at one step of its own, whichever that is.
        self._models = totals(ledger, PRICED_BY)
        self._thresholds = {
            size for key in price_periods(ledger) for size in self._rate(*key).thresholds
        }

    def _rate(self, provider: str, model: str, tier: str, at: float) -> Rates:
        key = (provider, model, tier, at)
        if key not in self._rates:
            self._rates[key] = self._book.rate(provider, model, at, tier=tier)
        return self._rates[key]

    def costs(self, by: Sequence[str]) -> dict[tuple[str, ...], _Sum]:
        """Cost by keys."""
        found: defaultdict[tuple[str, ...], _Sum] = defaultdict(_Sum)
        for own in priced_totals(self._ledger, by, self._thresholds):
            rates = self._rate(own.provider, own.model, own.tier, own.at)
            found[own.group.key].add(_piece(own.group.usage, rates, own.size))
        return found

    def passing(self, by: Sequence[str]) -> dict[tuple[str, ...], PassCost]:
        """Cost of a passed task, by keys of the calls that ended tasks."""
        ended = outcomes(self._ledger, by)
        if not ended:
            return {}
        if self._tasks is None:
            self._tasks = self.costs(("task",))
        costs = self._tasks
        tasks: defaultdict[tuple[str, ...], list[tuple[Cost, bool]]] = defaultdict(list)
        for task, (passed, key) in ended.items():
            tasks[key].append((costs[task,].cost, passed))
        return {
            key: pass_cost([own for own, _ in found], [passed for _, passed in found])
            for key, found in tasks.items()
        }

    def unpriced(self) -> tuple[Unpriced, ...]:
        """Models without a price, most calls first."""
        return tuple(
            Unpriced(provider=provider, model=model, tier=tier, calls=group.calls, why=rates.why)
            for group in self._models
            for provider, model, tier in [_names(group)]
            if not (rates := self._rate(provider, model, tier, group.last)).is_known
        )


def _names(group: Group) -> tuple[str, str, str]:
    """Provider, model and tier of a group by them."""
    provider, model, tier = group.key
    return provider, model, tier
