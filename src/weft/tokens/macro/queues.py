"""Queues of one server that takes requests one by one or all at the same time, in closed form.

With rates r, mean times m and mean squares q of what requests of each kind take, and rho = sum r m:

    one by one      delay[k] = m[k] + sum r q / (2 (1 - rho))       (Pollaczek and Khinchine)
    all at a time   delay[k] = m[k] / (1 - rho)                     (equal shares)

for arrivals that do not know of each other (Poisson). These are known answers, against which a toll
can be checked; a server of a model batches, and is `weft.tokens.macro.batching`.

Source: Kleinrock, Queueing Systems, volume I, 1975, section 5.6, and volume II, 1976, section 4.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weft.core.errors import InputError
from weft.tokens.macro.congestion import Response, require_rates, require_stable
from weft.tokens.micro.estimate import Floats

__all__ = ["FifoQueue", "Service", "SharedQueue", "exponential", "fixed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How long requests of a kind keep a server busy.

    Attributes:
        mean_s: on average [s].
        square_s2: mean of the square, at least the square of the mean [s^2].

    Raises:
        InputError: there are no such times.
    """

    mean_s: float
    square_s2: float

    def __post_init__(self) -> None:
        # Means of equal times may be off by rounding.
        if not (self.mean_s > 0.0 and self.square_s2 >= self.mean_s**2 * (1.0 - 1e-12)):
            raise InputError(
                need="a mean above zero, and a mean square of at least its square",
                got=f"mean {self.mean_s} s, mean square {self.square_s2} s^2",
                hint="Service.of(times) takes both from what was measured",
            )

    @staticmethod
    def of(seconds: Sequence[float] | Floats) -> Service:
        """From times that were measured [s]."""
        times = np.asarray(seconds, dtype=np.float64)
        return Service(mean_s=float(times.mean()), square_s2=float((times**2).mean()))


def exponential(mean_s: float) -> Service:
    """Times without memory.

    Example:
        >>> FifoQueue((exponential(0.5),)).response(np.array([1.0])).delays_s.tolist()
        [1.0]
    """
    return Service(mean_s=mean_s, square_s2=2.0 * mean_s**2)


def fixed(mean_s: float) -> Service:
    """Always the same time."""
    return Service(mean_s=mean_s, square_s2=mean_s**2)


@dataclass(frozen=True, slots=True)
class FifoQueue:
    """One by one, in the order of arrival: M/G/1.

    Attributes:
        services: of each kind.

    Example:
        >>> queue = FifoQueue((exponential(0.5), fixed(0.25)))
        >>> queue.response(np.array([1.0, 1.0])).delays_s.round(3).tolist()
        [1.625, 1.375]
    """

    services: tuple[Service, ...]

    @property
    def kinds(self) -> int:
        """How many kinds of requests it tells apart."""
        return len(self.services)

    def load(self, rates: Floats) -> float:
        """Share of time in which it is busy."""
        return float(rates @ _means(self.services))

    def response(self, rates: Floats) -> Response:
        """Delays and their slopes.

        Raises:
            InfeasibleError: the load is one or more.
        """
        require_rates(rates, self.kinds)
        require_stable(load := self.load(rates))
        means = _means(self.services)
        squares = np.array([own.square_s2 for own in self.services])
        wait = float(rates @ squares) / (2.0 * (1.0 - load))
        slope = squares / (2.0 * (1.0 - load)) + wait * means / (1.0 - load)
        return Response(delays_s=wait + means, slopes=np.tile(slope, (self.kinds, 1)))


@dataclass(frozen=True, slots=True)
class SharedQueue:
    """All at the same time, each at an equal share: M/G/1 with processor sharing.

    Attributes:
        services: of each kind; of these only means matter.
    """

    services: tuple[Service, ...]

    @property
    def kinds(self) -> int:
        """How many kinds of requests it tells apart."""
        return len(self.services)

    def load(self, rates: Floats) -> float:
        """Share of time in which it is busy."""
        return float(rates @ _means(self.services))

    def response(self, rates: Floats) -> Response:
        """Delays and their slopes.

        Raises:
            InfeasibleError: the load is one or more.
        """
        require_rates(rates, self.kinds)
        require_stable(load := self.load(rates))
        means = _means(self.services)
        return Response(
            delays_s=means / (1.0 - load), slopes=np.outer(means, means) / (1.0 - load) ** 2
        )


def _means(services: tuple[Service, ...]) -> Floats:
    return np.array([own.mean_s for own in services])
