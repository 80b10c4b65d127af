"""The numbers by which a number can be divided."""

from __future__ import annotations

__all__ = ["divisors"]


def divisors(number: int) -> list[int]:
    """All divisors of a positive number, 1 and itself included, in rising order.

    Example:
        >>> divisors(12)
        [1, 2, 3, 4, 6, 12]
    """
    return [n for n in range(1, number + 1) if number % n == 0]
