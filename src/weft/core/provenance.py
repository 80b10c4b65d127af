"""Where a number comes from.

A constant about hardware or from a paper never stands alone: it is a `Quantity`, which
names its unit and its origin. Planners read `.value`; people read the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from weft.core.errors import InputError

__all__ = ["Origin", "Quantity", "derived", "measured", "ported"]


class Origin(Enum):
    """How a number was obtained."""

    DERIVED = "derived"
    """Computed from other stated numbers; the source says how."""
    PORTED = "ported"
    """Taken from a data sheet, paper or other code base; the source names it."""
    MEASURED = "measured"
    """Measured; the source names the machine and the date."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A number with its unit and its origin.

    Raises:
        InputError: the value is not finite or negative, or the source is empty.
    """

    value: float
    unit: str
    origin: Origin
    source: str

    def __post_init__(self) -> None:
        if not 0.0 <= self.value < float("inf") or not self.source:
            raise InputError(
                need="a finite value of at least 0 and a source",
                got=f"value {self.value}, source {self.source!r}",
                hint="say where the number comes from: derived, ported or measured",
            )


def derived(value: float, unit: str, source: str) -> Quantity:
    """A number computed from others; `source` says how."""
    return Quantity(value=value, unit=unit, origin=Origin.DERIVED, source=source)


def ported(value: float, unit: str, source: str) -> Quantity:
    """A number from a data sheet, a paper or another code base."""
    return Quantity(value=value, unit=unit, origin=Origin.PORTED, source=source)


def measured(value: float, unit: str, source: str) -> Quantity:
    """A number measured on a named machine at a named date."""
    return Quantity(value=value, unit=unit, origin=Origin.MEASURED, source=source)
