"""Measured times against sizes, where two or three constants are too crude.

A curve belongs to one thing that was measured (an operator, a collective) and answers one
question: how long at this size. Sizes are bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

from weft.core.errors import InputError

__all__ = ["Curve"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Measured seconds at ascending sizes.

    Attributes:
        sizes_bytes: strictly ascending, above 0 [bytes].
        seconds: one for each size, above 0 and never falling [s].
        source: machine, date and library of the measurement.

    Raises:
        InputError: the points do not make such a curve, or the source is empty.

    Example:
        >>> curve = Curve(sizes_bytes=(1e3, 3e3), seconds=(1.0, 2.0), source="example")
        >>> curve.seconds_at(10), curve.seconds_at(2e3), curve.seconds_at(6e3)
        (1.0, 1.5, 4.0)
    """

    sizes_bytes: tuple[float, ...]
    seconds: tuple[float, ...]
    source: str

    def __post_init__(self) -> None:
        sizes, seconds = self.sizes_bytes, self.seconds
        if (
            not sizes
            or len(sizes) != len(seconds)
            or not sizes[0] > 0
            or not seconds[0] > 0
            or not all(a < b < float("inf") for a, b in pairwise(sizes))
            or not all(a <= b < float("inf") for a, b in pairwise(seconds))
            or not self.source
        ):
            raise InputError(
                need="at least one size, sizes that rise, times above 0 that do not fall, "
                "one for each size, and a source",
                got=f"sizes {sizes}, seconds {seconds}, source {self.source!r}",
                hint="measure again with weft.runtime.probe",
            )

    def seconds_at(self, num_bytes: float) -> float:
        """Time at a size [s].

        Linear between two points, which is exact where a fixed cost plus a rate holds. Below the
        first point the fixed cost rules: its time. Above the last, the rate of the last point.
        """
        sizes, seconds = self.sizes_bytes, self.seconds
        if num_bytes <= sizes[0]:
            return seconds[0]
        if num_bytes >= sizes[-1]:
            return seconds[-1] * num_bytes / sizes[-1]
        right = bisect_right(sizes, num_bytes)
        share = (num_bytes - sizes[right - 1]) / (sizes[right] - sizes[right - 1])
        return seconds[right - 1] + share * (seconds[right] - seconds[right - 1])
