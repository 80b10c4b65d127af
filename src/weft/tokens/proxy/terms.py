"""What a call may cost: amounts to reserve, and what a grant allows.

The least to go ahead with is what the input can cost at most and a quantile of outputs; the most
that is useful is the longest answer that was asked for. What is granted lies between, and the
provider is held to it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

from weft.core.errors import InputError
from weft.tokens.adapters.envelope import tier_name
from weft.tokens.adapters.providers import provider_of_model
from weft.tokens.budgets.node import CALLS
from weft.tokens.budgets.reserving import CallPrice, Outputs
from weft.tokens.classes import INPUT, OUTPUT, TokenClass
from weft.tokens.count import Count
from weft.tokens.money import NANO, Money, usd
from weft.tokens.prices import PriceBook, Rates, cost
from weft.tokens.proxy.request import Request
from weft.tokens.usage import Usage

__all__ = ["KNOWN_UNITS", "Tariff", "Terms", "foreign"]

TOKENS = "tokens"
USD = "usd"
KNOWN_UNITS = frozenset({USD, TOKENS, CALLS})
"""What caps may be in."""
ONE_CALL = (Money(NANO, CALLS),)
MILLION = 10**6
FRESH_S = 60.0
"""How long a price is taken to hold before the book is asked again [s]. Chosen: books change by the
day, or by the hour."""
KNOWN = 1000
"""Models whose prices are remembered. Chosen: clients may ask for any name."""
_Dearest: TypeAlias = tuple[int, Decimal, Decimal]
"""Input above which it holds [tokens], the highest prices of one that is read and written [USD]."""
_READ = (
    *(TokenClass.FRESH, TokenClass.CACHE_READ, TokenClass.CACHE_WRITE_5M, TokenClass.TOOL),
    TokenClass.IMAGE_IN,
)
_SPOKEN = TokenClass.AUDIO_OUT
_WRITTEN = (TokenClass.TEXT, TokenClass.REASONING, TokenClass.REJECTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a call may cost.

    Attributes:
        units: that are capped where it is paid from, but for calls.
        least, most: amounts to reserve, one of each unit.
        price: by the length of the answer; None where money is not capped and has no price.
        rates: of the model.
        input_bound: tokens that can be read.
        choices, wanted: answers, and the tokens of each.
        hears, speaks: whether sound is sent, or asked for.
    """

    units: tuple[str, ...]
    least: tuple[Money, ...]
    most: tuple[Money, ...]
    price: CallPrice | None
    rates: Rates
    input_bound: int
    choices: int
    wanted: int
    hears: bool
    speaks: bool

    def limit(self, held: Sequence[Money]) -> int:
        """Tokens that each answer is held to, by what was granted; at least one."""
        room = self.wanted * self.choices
        for own in held:
            if own.currency == TOKENS:
                room = min(room, own.nano // NANO - self.input_bound)
            elif own.currency == USD and self.price is not None and self.price.million.nano > 0:
                room = min(room, self.price.tokens(own))
        return max(1, room // self.choices)

    def bounds(self, limit: int, seen: int = 0) -> Usage:
        """What a call has used of which nobody says how much.

        Args:
            limit: tokens that each answer was held to.
            seen: tokens that were answered at least.
        """
        read = Count(0, self.input_bound)
        written = Count(seen, max(limit * self.choices, seen))
        counts = {TokenClass.FRESH: read, TokenClass.TEXT: written}
        if self.hears:
            counts[TokenClass.AUDIO_IN] = read
        if self.speaks:
            counts |= {leaf: Count(0, written.high) for leaf in (TokenClass.TEXT, _SPOKEN)}
        return Usage(counts=counts, input=read, output=written)

    def worst(self, limit: int) -> tuple[Money, ...]:
        """What a call can cost whose answers are held to so many tokens, of each capped unit."""
        tokens = limit * self.choices
        amounts: list[Money] = []
        for unit in self.units:
            if unit == USD and self.price is not None:
                amounts.append(self.price.cost(tokens))
            else:
                amounts.append(Money((self.input_bound + tokens) * NANO, unit))
        return tuple(amounts) or ONE_CALL

    def spent(self, usage: Usage, limit: int) -> tuple[Money, ...]:
        """What to settle: the most that a usage can have cost, of each unit that is capped."""
        amounts: list[Money] = []
        for place, unit in enumerate(self.units):
            high = cost(usage, self.rates).high if unit == USD else None
            tokens = (usage.input + usage.output).high if unit == TOKENS else None
            if high is not None:
                amounts.append(usd(high, up=True))
            elif tokens is not None:
                amounts.append(Money(tokens * NANO, TOKENS))
            else:
                amounts.append(self.worst(limit)[place])
        return tuple(amounts) or ONE_CALL


class Tariff:
    """Prices of a book, by model, and lengths of answers.

    Args:
        book: of prices; None where only tokens and calls are capped.
        provider: whose prices hold; empty to go by the names of models.
        alpha: share of answers that may be longer than what is reserved at least.
    """

    def __init__(self, book: PriceBook | None, provider: str = "", alpha: float = 0.01) -> None:
        self._book = book
        self._provider = provider
        self._known: OrderedDict[tuple[str, str], tuple[float, Rates]] = OrderedDict()
        self._steps: dict[tuple[str, str, bool, bool], tuple[_Dearest, ...]] = {}
        self.outputs = Outputs(alpha=alpha)

    def provider_of(self, model: str) -> str:
        """Whose model it is; empty if that is not known."""
        return self._provider or provider_of_model(model)

    def rates(self, model: str, tier: str) -> Rates:
        """Prices of a model now."""
        key, now = (model, tier), time.monotonic()
        found = self._known.get(key)
        if found is not None and found[0] > now:
            return found[1]
        if self._book is None:
            rates = Rates(provider=self._provider, model=model, why="no prices were given")
        else:
            name, kind = model.lower(), tier_name(tier)
            rates = self._book.rate(self.provider_of(model), name, time.time(), tier=kind)
        self._known[key] = (now + FRESH_S, rates)
        self._steps.clear()
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)
        return rates

    def terms(self, request: Request, task: str, units: Sequence[str]) -> Terms:
        """What a request may cost.

        Args:
            request: the request.
            task: what it is for, as far as lengths of answers go.
            units: that are capped where it is paid from.

        Raises:
            InputError: money is capped, and the model has no price; or another currency is.
        """
        rates = self.rates(request.model, request.tier)
        key = (request.model, request.tier, request.hears, request.speaks)
        steps = self._steps.get(key)
        if steps is None:
            steps = self._steps[key] = _dearest(rates, request.hears, request.speaks)
        price = _call_price(steps, request)
        if USD in units and price is None:
            raise InputError(
                need=f"a price of {request.model}",
                got=rates.why or "none",
                hint="--prices names a book that has one, or cap tokens in place of money",
            )
        quote = self.outputs.quote(request.model, task, request.wanted)
        counts = (max(1, quote.tokens) * request.choices, request.wanted * request.choices)
        least: list[Money] = []
        most: list[Money] = []
        for unit in units:
            for amounts, tokens in zip((least, most), counts, strict=True):
                if unit == USD and price is not None:
                    amounts.append(price.cost(tokens))
                elif unit == TOKENS:
                    amounts.append(Money((request.input_bound + tokens) * NANO, TOKENS))
                elif unit != CALLS:
                    raise foreign(unit)
        return Terms(
            units=tuple(own.currency for own in least),
            least=tuple(least) or ONE_CALL,
            most=tuple(most) or ONE_CALL,
            price=price,
            rates=rates,
            input_bound=request.input_bound,
            choices=request.choices,
            wanted=request.wanted,
            hears=request.hears,
            speaks=request.speaks,
        )


def foreign(unit: str) -> InputError:
    """A cap in something that a call is not priced in."""
    return InputError(
        need="caps in usd, tokens or calls",
        got=unit,
        hint="prices are in dollars: convert the cap at a rate of your own",
    )


def _dearest(rates: Rates, hears: bool, speaks: bool) -> tuple[_Dearest, ...]:
    """Of each step: where it begins, and the highest prices; none where one is missing."""
    needed = [TokenClass.FRESH, TokenClass.TEXT]
    needed += [TokenClass.AUDIO_IN] if hears else []
    needed += [TokenClass.AUDIO_OUT] if speaks else []
    found: list[_Dearest] = []
    for step in rates.steps:
        if any(step.price(leaf) is None for leaf in needed):
            return ()
        highs = [
            max(own for leaf in leaves if leaf in side and (own := step.price(leaf)) is not None)
            for leaves, side in (((*_READ, *needed), INPUT), ((*_WRITTEN, *needed), OUTPUT))
        ]
        found.append((step.above, highs[0], highs[1]))
    return tuple(found)


def _call_price(steps: Sequence[_Dearest], request: Request) -> CallPrice | None:
    """What a request costs at most, by the length of its answer; None where it has no price."""
    reached = [own for own in steps if own[0] < request.input_bound]
    if not reached:
        return None
    fixed = max(own[1] for own in reached) * request.input_bound
    million = max(own[2] for own in reached) * MILLION
    return CallPrice(fixed=usd(fixed, up=True), million=usd(million, up=True))
