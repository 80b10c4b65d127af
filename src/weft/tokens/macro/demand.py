"""Who wants a shared server, how much, and what a second of delay costs them.

Users of a group send requests at up to some rate. Each request has a value, and is sent if that is
at least what it costs all in all: its price, and its delay at what a second of that is worth.
Sorted by value, the requests of a group make a demand curve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from weft.core.errors import InputError

__all__ = ["Demand", "EvenValues", "SkewedValues", "Values"]


class Values(Protocol):
    """How the values of requests are spread."""

    def share(self, cost_usd: float) -> float:
        """Of requests, those that are worth at least so much."""
        ...

    def least(self, share: float) -> float:
        """Value of the least one of the most valuable requests that make up a share [usd]."""
        ...

    def total(self, share: float) -> float:
        """Value of the most valuable requests that make up a share, by request of all [usd]."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EvenValues:
    """Spread evenly between two values, which makes a straight demand curve.

    Raises:
        InputError: the ends are not in order.

    Example:
        >>> EvenValues(low_usd=0.0, high_usd=2.0).share(0.5)
        0.75
    """

    low_usd: float
    high_usd: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.low_usd < self.high_usd < math.inf:
            raise InputError(
                need="values from at least zero up",
                got=f"{self.low_usd} to {self.high_usd} usd",
                hint="requests are worth something to who sends them",
            )

    def share(self, cost_usd: float) -> float:
        """Of requests, those that are worth at least so much."""
        share = (self.high_usd - cost_usd) / (self.high_usd - self.low_usd)
        return min(max(share, 0.0), 1.0)

    def least(self, share: float) -> float:
        """Value of the least one of the most valuable requests that make up a share [usd]."""
        return self.high_usd - share * (self.high_usd - self.low_usd)

    def total(self, share: float) -> float:
        """Value of the most valuable requests that make up a share, by request of all [usd]."""
        return share * (self.high_usd + self.least(share)) / 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SkewedValues:
    """Most are worth little, few much: exponential, with a mean.

    Raises:
        InputError: the mean is not above zero.

    Example:
        >>> round(SkewedValues(mean_usd=1.0).share(1.0), 4)
        0.3679
    """

    mean_usd: float

    def __post_init__(self) -> None:
        if not 0.0 < self.mean_usd < math.inf:
            raise InputError(
                need="a mean above zero", got=f"{self.mean_usd} usd", hint="leave such a group out"
            )

    def share(self, cost_usd: float) -> float:
        """Of requests, those that are worth at least so much."""
        return math.exp(-max(cost_usd, 0.0) / self.mean_usd)

    def least(self, share: float) -> float:
        """Value of the least one of the most valuable requests that make up a share [usd]."""
        return -self.mean_usd * math.log(share) if share > 0.0 else math.inf

    def total(self, share: float) -> float:
        """Value of the most valuable requests that make up a share, by request of all [usd]."""
        return self.mean_usd * share * (1.0 - math.log(share)) if share > 0.0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A group of users.

    Attributes:
        rate: at which they would send requests if those were free and took no time [1/s].
        values: of their requests.
        delay_usd_per_s: what a second of delay costs each request [usd/s].

    Raises:
        InputError: they send nothing, or like to wait.
    """

    rate: float
    values: Values
    delay_usd_per_s: float

    def __post_init__(self) -> None:
        if not (0.0 < self.rate < math.inf and 0.0 <= self.delay_usd_per_s < math.inf):
            raise InputError(
                need="a rate above zero, and a cost of delay of at least zero",
                got=f"{self.rate} a second, {self.delay_usd_per_s} usd/s",
                hint="leave out a group that sends nothing",
            )
