"""From numbers to places on a picture, and round numbers to mark them by."""

from __future__ import annotations

import math
from dataclasses import dataclass

from weft.core.errors import InputError

__all__ = ["Scale", "Ticks", "byte_ticks", "linear_ticks", "second_ticks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A straight line from a range of numbers to a range of pixels.

    Raises:
        InputError: the range of numbers is empty or not finite.
    """

    low: float
    high: float
    start: float
    end: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise InputError(
                need="a finite range with low < high to draw",
                got=f"{self.low} to {self.high}",
                hint="leave out values that are not finite",
            )

    def __call__(self, value: float) -> float:
        """Pixel of a number."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticks:
    """Numbers to mark on an axis, their labels, and the unit that all labels share."""

    values: tuple[float, ...]
    labels: tuple[str, ...]
    unit: str


def linear_ticks(low: float, high: float, *, count: int = 5, unit: str = "") -> Ticks:
    """About `count` round numbers (1, 2 or 5 times a power of ten) inside a range.

    Example:
        >>> linear_ticks(0.0, 1.0).labels
        ('0', '0.2', '0.4', '0.6', '0.8', '1')
    """
    return _ticks(low, high, count, 1.0, unit)


def second_ticks(low: float, high: float, *, count: int = 6) -> Ticks:
    """Round times, in the unit that suits the larger end."""
    largest = max(abs(low), abs(high))
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if largest >= scale:
            return _ticks(low, high, count, scale, unit)
    return _ticks(low, high, count, 1e-6, "us")


def byte_ticks(low: float, high: float, *, count: int = 5) -> Ticks:
    """Round sizes in a binary unit."""
    largest = max(abs(low), abs(high))
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if largest >= 1024.0**power:
            return _ticks(low, high, count, 1024.0**power, unit)
    return _ticks(low, high, count, 1.0, "B")


def _ticks(
    low: float,
    high: float,
    count: int,
    scale: float,
    unit: str,
) -> Ticks:
    step = _round_step((high - low) / scale / max(count, 1))
    first = math.ceil(low / scale / step - 1e-9)
    last = math.floor(high / scale / step + 1e-9)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    numbers = [index * step for index in range(first, last + 1)]
    labels = tuple(_label(number, decimals) for number in numbers)
    return Ticks(values=tuple(n * scale for n in numbers), labels=labels, unit=unit)


def _label(number: float, decimals: int) -> str:
    text = f"{number:.{decimals}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def _round_step(rough: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is at least `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    for factor in (1.0, 2.0, 5.0, 10.0):
        if factor * power >= rough * (1 - 1e-9):
            return factor * power
    raise AssertionError("a power of ten is at least a tenth of the number")
