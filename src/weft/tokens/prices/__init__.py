"""Prices from books that others keep, and what tokens cost by them."""

from __future__ import annotations

from weft.tokens.prices.book import open_book
from weft.tokens.prices.cost import FREE, UNPRICED, Cost, cost
from weft.tokens.prices.file import FileBook
from weft.tokens.prices.genai import GenaiBook
from weft.tokens.prices.litellm_map import LitellmBook
from weft.tokens.prices.rates import FALLBACKS, BookSource, PriceBook, Rates, Step

__all__ = [
    "FALLBACKS",
    "FREE",
    "UNPRICED",
    "BookSource",
    "Cost",
    "FileBook",
    "GenaiBook",
    "LitellmBook",
    "PriceBook",
    "Rates",
    "Step",
    "cost",
    "open_book",
]
