"""Amounts that add up exactly: whole billionths of a currency."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal, InvalidOperation
from functools import total_ordering

from weft.core.errors import InputError

__all__ = ["NANO", "Money", "parse_money", "usd"]

NANO = 10**9
"""Parts of a unit. A token of the cheapest models costs some ten of them; 2**63 are nine billion
units, so databases hold any sum."""


@total_ordering
@dataclass(frozen=True, slots=True, eq=True)
class Money:
    """An amount.

    Attributes:
        nano: billionths.
        currency: lower-case code ("usd"), or a unit that is budgeted alike ("tokens", "calls").

    Raises:
        InputError: amounts of two currencies are added or compared.

    Example:
        >>> usd("1.25") + usd(2), usd("0.000003") * 7, -usd(1) < usd(0)
        (3.25 usd, 0.000021 usd, True)
    """

    nano: int
    currency: str = "usd"

    def __add__(self, other: Money) -> Money:
        return Money(self.nano + self._same(other).nano, self.currency)

    def __sub__(self, other: Money) -> Money:
        return Money(self.nano - self._same(other).nano, self.currency)

    def __neg__(self) -> Money:
        return Money(-self.nano, self.currency)

    def __mul__(self, factor: int) -> Money:
        return Money(self.nano * factor, self.currency)

    def __lt__(self, other: Money) -> bool:
        return self.nano < self._same(other).nano

    def _same(self, other: Money) -> Money:
        if other.currency != self.currency:
            raise InputError(
                need=f"amounts of one currency, {self.currency}",
                got=f"{self} and {other}",
                hint="convert one of them at a rate of your own first",
            )
        return other

    @property
    def amount(self) -> Decimal:
        """In units of the currency."""
        return Decimal(self.nano) / NANO

    def __str__(self) -> str:
        return f"{self.amount.normalize():f} {self.currency}"

    __repr__ = __str__


def usd(amount: str | int | float | Decimal, *, up: bool = False) -> Money:
    """Dollars, to the billionth.

    Args:
        amount: numbers as they are written; a float is taken as it prints.
        up: whether what is less than a billionth counts as one, as for reservations, or is rounded
            to the nearest, ties to even.

    Raises:
        InputError: it is no finite number.

    Example:
        >>> usd("2.5"), usd("1e-10"), usd("1e-10", up=True)
        (2.5 usd, 0 usd, 0.000000001 usd)
    """
    try:
        exact = Decimal(str(amount)) * NANO
        rounding = ROUND_CEILING if up else ROUND_HALF_EVEN
        return Money(int(exact.to_integral_value(rounding=rounding)))
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise InputError(
            need="an amount of dollars", got=repr(amount), hint='usd("0.25"), for example'
        ) from error


def parse_money(text: str) -> Money:
    """Read an amount such as "50usd", "$0.25" or "3 tokens"; a bare number is dollars.

    Raises:
        InputError: it is no number followed by a name of letters.

    Example:
        >>> parse_money("50usd"), parse_money("$0.25"), parse_money("2e6 tokens")
        (50 usd, 0.25 usd, 2000000 tokens)
    """
    match = re.fullmatch(r"\s*\$?\s*([-+0-9.]+(?:e[-+]?\d{1,2})?)\s*([a-z]*)\s*", text.lower())
    if match is None:
        raise InputError(
            need="an amount such as 50usd, $0.25 or 1000 tokens",
            got=repr(text),
            hint="write a number and, after it, the currency",
        )
    return Money(usd(match[1]).nano, match[2] or "usd")
