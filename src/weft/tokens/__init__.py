"""Tokens: what they are worth, what they cost, and who may spend how many."""

from __future__ import annotations

from weft.tokens.budgets import Budget
from weft.tokens.call import Call, Status
from weft.tokens.classes import INPUT, OUTPUT, TokenClass
from weft.tokens.count import NONE, UNKNOWN, Count, exactly
from weft.tokens.money import NANO, Money, parse_money, usd
from weft.tokens.usage import Usage

__all__ = [
    "INPUT",
    "NANO",
    "NONE",
    "OUTPUT",
    "UNKNOWN",
    "Budget",
    "Call",
    "Count",
    "Money",
    "Status",
    "TokenClass",
    "Usage",
    "exactly",
    "parse_money",
    "usd",
]
