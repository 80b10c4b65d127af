"""What a list asks for the requests that an own server would answer."""

from __future__ import annotations

from collections.abc import Sequence

from weft.core.errors import InputError
from weft.tokens.classes import TokenClass
from weft.tokens.prices.rates import PriceBook, Step
from weft.tokens.serving.simulate import Request

__all__ = ["list_usd"]


def list_usd(name: str, book: PriceBook, requests: Sequence[Request], at: float) -> float:
    """Of a mean request [usd].

    Args:
        name: "openai/gpt-5-mini", or a model alone.
        book: with its prices.
        requests: of a trace.
        at: when they were asked for [s since 1970].

    Raises:
        InputError: the book has no price of that model.
    """
    provider, _, model = name.rpartition("/")
    rates = book.rate(provider, model, at)
    if not rates.is_known or not requests:
        raise InputError(
            need=f"a model that {book.source} has prices of, and requests",
            got=f"{name}: {rates.why or 'no requests'}",
            hint="PROVIDER/MODEL as the book names them, such as openai/gpt-5-mini",
        )
    total = 0.0
    for own in requests:
        step = rates.step(own.input_tokens)
        total += own.fresh * _usd(step, TokenClass.FRESH, name)
        total += own.cached_tokens * _usd(step, TokenClass.CACHE_READ, name)
        total += own.output_tokens * _usd(step, TokenClass.TEXT, name)
    return total / len(requests)


def _usd(step: Step, leaf: TokenClass, name: str) -> float:
    price = step.price(leaf)
    if price is None:
        raise InputError(
            need=f"a price of {leaf.value} tokens",
            got=f"none for {name}",
            hint="take another book, or write a file of prices",
        )
    return float(price)
