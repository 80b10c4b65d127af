"""How many tokens, as far as is known: an interval, of which the ends are the same for most."""

from __future__ import annotations

from dataclasses import dataclass

from weft.core.errors import InputError

__all__ = ["NONE", "UNKNOWN", "Count", "exactly"]

MOST = 2**63 - 1
"""Sums of counts are whole numbers of SQLite, which are no larger. Source: SQLite documentation,
datatypes. What a single call reports is limited by `weft.tokens.adapters.shape`."""


@dataclass(frozen=True, slots=True)
class Count:
    """From `low` to `high` tokens; `high` is None where nothing limits it.

    Counts add up, and `&` is what two of the same tokens say together.

    Raises:
        InputError: a bound is negative or larger than databases hold, or they are in the wrong
            order.

    Example:
        >>> exactly(3) + Count(1, 5), exactly(2) + UNKNOWN
        (4 to 8, at least 2)
    """

    low: int
    high: int | None

    def __post_init__(self) -> None:
        top = self.low if self.high is None else self.high
        if not 0 <= self.low <= top <= MOST:
            raise InputError(
                need=f"counts of tokens from 0 to {MOST}, the lower first",
                got=f"{self.low} to {self.high}",
                hint="leave a count out that is not known: it is then unknown, not zero",
            )

    @property
    def is_exact(self) -> bool:
        """Whether both ends are the same."""
        return self.high == self.low

    def __add__(self, other: Count) -> Count:
        low = self.low + other.low
        if self.high is None or other.high is None:
            return Count(low, None)
        return Count(low, self.high + other.high)

    def __and__(self, other: Count) -> Count:
        """What both say.

        Raises:
            InputError: they cannot both be right.
        """
        low = max(self.low, other.low)
        ends = [high for high in (self.high, other.high) if high is not None]
        high = min(ends, default=None)
        if high is not None and high < low:
            raise InputError(
                need=f"a count that agrees with {self}",
                got=f"{other}",
                hint="two sources count the same tokens: find out which of them is wrong",
            )
        return Count(low, high)

    def __repr__(self) -> str:
        if self.high is None:
            return f"at least {self.low}"
        return str(self.low) if self.is_exact else f"{self.low} to {self.high}"


def exactly(count: int) -> Count:
    """A count that is known."""
    return Count(count, count)


NONE = exactly(0)
UNKNOWN = Count(0, None)
"""Nothing is known, which is not the same as no token."""
