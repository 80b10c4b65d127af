"""Delays of a server that batches, in which all requests get a token at each step.

With n requests in its batch a step takes t0(n) seconds, and a prompt that comes along makes one
step longer by d[k](n). Prompts come at rates r, so that of a second 1 - u(n) is left for answers,
u(n) = sum r d(n), and a step takes t(n) = t0(n) / (1 - u(n)). Each request leaves after o[k] steps:
all in the batch share n / t(n) tokens a second equally. Such a server is a symmetric queue. The
chance of n requests is

    w(n) / sum w,   w(n) = w(n - 1) rho t(n) / n,   rho = sum r o

however long answers are distributed, and delays follow by Little's law. Beyond the batch of m
requests that fit, others wait, and w(n) = w(n - 1) rho t(m) / m.

Slopes are exact for that chain: d E[X] / d r[k] = Cov(X, d ln w / d r[k]) + E[d X / d r[k]].

Approximated are: who is in the batch, by the mix of all requests, weighted by the steps that they
stay; prompts that meet in one step, by their sum; the wait for a place in the batch, which would be
known for answers without memory only. `benchmarks/tokens/markets.py` compares with simulation.

Source: Kelly, Reversibility and Stochastic Networks, 1979, section 3.3 (symmetric queues).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from weft.core.errors import InfeasibleError, InputError
from weft.tokens.macro.congestion import Response, require_rates, require_stable
from weft.tokens.micro.estimate import Floats, Ints
from weft.tokens.serving.steps import StepTimes

__all__ = ["BatchServer", "Kind", "Occupancy"]


NEVER_S = 1e-300
"""In place of the time of a step without anything in it, which may be zero and divides nothing that
is used [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Requests of one size.

    Attributes:
        fresh: tokens of the prompt that are computed.
        cached: tokens of the prompt whose keys and values are there already.
        output: tokens of the answer, one or more.

    Raises:
        InputError: a number is negative, or there is no answer.
    """

    fresh: float
    cached: float = 0.0
    output: float

    def __post_init__(self) -> None:
        if not (self.fresh >= 0.0 and self.cached >= 0.0 and self.output >= 1.0):
            raise InputError(
                need="tokens of at least zero, and an answer of at least one",
                got=f"{self}",
                hint="a request that was refused is none",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupancy:
    """How full a server is.

    Attributes:
        batch: requests in the batch, on average.
        waiting: requests that wait for a place, on average.
        variance: of the number of all of them.
        room: requests that the batch has room for.
        token_s: from one token of an answer to the next, on average [s].
    """

    batch: float
    waiting: float
    variance: float
    room: float
    token_s: float


@dataclass(frozen=True, kw_only=True, eq=False)
class _Chain:
    """Of all states 0 to N, then of a batch of exactly m, as the last."""

    rates: Floats  # r [kinds]
    steps: Floats  # o [kinds]
    rho: float
    levels: Floats  # requests in the batch [N + 2]
    plain: Floats  # t0 [N + 2]
    prompts: Floats  # d [N + 2, kinds]
    busy: Floats  # u [N + 2]
    tight: Ints  # the busiest resource of a plain step [N + 2]
    tight_prompt: Ints  # and of one with a prompt [N + 2, kinds]
    by_context: Floats  # seconds of a token of context more in the batch [resources]
    by_member: Floats  # seconds of a request more in the batch [resources]
    mix: Floats  # d mean context / d r [kinds]
    room_slope: Floats  # d m / d r [kinds]

    @cached_property
    def ratio(self) -> float:
        """Of the chances of two states next to each other where requests wait."""
        return self.rho * float(self.plain[-1] / (1.0 - self.busy[-1]) / self.levels[-1])

    @cached_property
    def chances(self) -> Floats:
        """Of the states 0 to N [N + 1]."""
        n, t = self.levels[1:-1], self.plain[1:-1] / (1.0 - self.busy[1:-1])
        logs = np.concatenate([[0.0], np.cumsum(np.log(self.rho * t / n))])
        weights = np.exp(logs - logs.max())
        whole = weights.sum() + weights[-1] * self.ratio / (1.0 - self.ratio)
        return weights / whole

    @cached_property
    def tails(self) -> tuple[float, float, float]:
        """Chance of a state beyond N, times how far beyond to the powers 0, 1 and 2."""
        r, last = self.ratio, float(self.chances[-1])
        return (
            last * r / (1.0 - r),
            last * r / (1.0 - r) ** 2,
            last * r * (1.0 + r) / (1.0 - r) ** 3,
        )

    def mean(self, values: Floats) -> Floats:
        """Of what depends on the batch [N + 2, ...]."""
        return np.tensordot(self.chances, values[:-1], 1) + self.tails[0] * values[-1]

    @cached_property
    def scores(self) -> tuple[Floats, Floats]:
        """Slopes d ln w / d r, of the states 0 to N [N + 1, kinds], and by state beyond [kinds]."""
        lift = self.levels[:, None] * self.mix
        slope = self.by_context[self.tight][:, None]
        rates_slope = (self.by_context[self.tight_prompt] - slope) @ self.rates
        by_plain = lift * slope / np.maximum(self.plain, NEVER_S)[:, None]
        by_prompt = (self.prompts + lift * rates_slope[:, None]) / (1.0 - self.busy)[:, None]
        by_step = by_plain + by_prompt + self.steps / self.rho
        by_step[0] = 0.0
        member = self.by_member[self.tight[-1]]
        by_room = member / self.plain[-1] - 1.0 / self.levels[-1]
        more = (self.by_member[self.tight_prompt[-1]] - member) @ self.rates
        by_room += more / (1.0 - self.busy[-1])
        return np.cumsum(by_step[:-1], axis=0), by_step[-1] + by_room * self.room_slope

    def slope(self, values: Floats, moved: Floats) -> Floats:
        """The slope d mean(values) / d r [..., kinds].

        Args:
            values: that depend on the batch [N + 2, ...].
            moved: d values / d r [N + 2, ..., kinds].
        """
        within, beyond = self.scores
        tail = self.tails[0] * within[-1] + self.tails[1] * beyond
        score = self.chances @ within + tail
        both = np.tensordot((self.chances[:, None] * within).T, values[:-1], 1)
        both = np.moveaxis(both, 0, -1) + np.multiply.outer(values[-1], tail)
        return both - np.multiply.outer(self.mean(values), score) + self.mean(moved)

    def waiting(self) -> tuple[float, Floats, float]:
        """How many wait on average, d of that / d r [kinds], and the mean square of all there."""
        within, beyond = self.scores
        short = len(self.chances) - 1 - float(self.levels[-1])
        none, one, two = self.tails
        count = one + short * none
        score = self.chances @ within + none * within[-1] + one * beyond
        both = within[-1] * count + beyond * (two + short * one)
        slope = both - count * score - none * self.room_slope
        states = np.arange(len(self.chances))
        last = float(states[-1])
        square = float(self.chances @ states**2) + none * last**2 + 2.0 * one * last + two
        return count, slope, square


@dataclass(frozen=True, slots=True)
class BatchServer:
    """A server of a model, shared by requests of some kinds.

    Attributes:
        times: of its steps.
        sizes: of requests, by kind.
        max_sequences: most in a batch; what fits into memory where that is less.

    Raises:
        InfeasibleError: a request does not fit into memory.

    Example:
        >>> from weft.tokens.serving import ResourceTime
        >>> memory = ResourceTime("memory", fixed_s=0.010, context_token_s=1e-8)
        >>> times = StepTimes((ResourceTime("compute", token_s=2e-5), memory), 400_000)
        >>> server = BatchServer(times, (Kind(fresh=1000, output=200),))
        >>> server.response(np.array([10.0])).delays_s.round(2).tolist()
        [2.3]
    """

    times: StepTimes
    sizes: tuple[Kind, ...]
    max_sequences: int = 4096

    def __post_init__(self) -> None:
        most = max((k.fresh + k.cached + k.output for k in self.sizes), default=0.0)
        if not self.sizes or self.max_sequences < 1:
            raise InputError(
                need="a kind of request, and room for one",
                got=f"{len(self.sizes)} kinds, room for {self.max_sequences}",
                hint="sizes are those of a trace, for example",
            )
        if most > self.times.cache_tokens:
            raise InfeasibleError(
                need=f"room for the {most:,.0f} tokens of a request",
                got=f"{self.times.cache_tokens:,}",
                options=("more devices", "a limit on requests"),
            )

    @property
    def kinds(self) -> int:
        """How many kinds of requests it tells apart."""
        return len(self.sizes)

    def load(self, rates: Floats) -> float:
        """Share of what the server can do with a full batch."""
        require_rates(rates, self.kinds)
        if not rates.any():
            return 0.0
        chain = self._chain(rates)
        full = chain.rho * float(chain.plain[-1] / chain.levels[-1]) + float(chain.busy[-1])
        return max(full, float(chain.busy[1:].max()))

    def response(self, rates: Floats) -> Response:
        """Delays and their slopes.

        Raises:
            InputError: nobody asks for anything.
            InfeasibleError: the load is one or more.
        """
        chain = self._stable(rates)
        whole, rho, steps = float(rates.sum()), chain.rho, chain.steps
        count, count_slope, _ = chain.waiting()
        wait_slope = count_slope / whole - count / whole**2
        batch = float(chain.mean(chain.levels))
        moved = np.zeros((len(chain.levels), self.kinds))
        moved[-1] = chain.room_slope
        token_slope = chain.slope(chain.levels, moved) / rho - batch * steps / rho**2
        own, own_moved = _entry(chain)
        return Response(
            delays_s=count / whole + chain.mean(own) + steps * batch / rho,
            slopes=wait_slope + chain.slope(own, own_moved) + np.outer(steps, token_slope),
        )

    def occupancy(self, rates: Floats) -> Occupancy:
        """How full it is.

        Raises:
            InputError: nobody asks for anything.
            InfeasibleError: the load is one or more.
        """
        chain = self._stable(rates)
        count, _, square = chain.waiting()
        batch = float(chain.mean(chain.levels))
        return Occupancy(
            batch=batch,
            waiting=count,
            variance=square - (batch + count) ** 2,
            room=float(chain.levels[-1]),
            token_s=batch / chain.rho,
        )

    def _stable(self, rates: Floats) -> _Chain:
        require_stable(self.load(rates))
        if not rates.any():
            raise InputError(
                need="requests of some kind",
                got="rates of zero",
                hint="a server that nobody uses has no delays to speak of",
            )
        return self._chain(rates)

    def _chain(self, rates: Floats) -> _Chain:
        fresh, cached, steps = np.array([(k.fresh, k.cached, k.output) for k in self.sizes]).T
        rho = float(rates @ steps)
        context = fresh + cached + 0.5 * steps
        mean = float(rates @ (steps * context)) / rho
        mix = (context - mean) * steps / rho
        room, room_slope = float(self.max_sequences), np.zeros(self.kinds)
        if self.times.cache_tokens / mean < room:
            room = self.times.cache_tokens / mean
            room_slope = -room * mix / mean
        levels = np.append(np.arange(float(int(room)) + 1.0), room)
        own = self.times.resources
        by_context = np.array([r.pair_s + r.context_token_s for r in own])
        by_member = np.array([r.token_s + r.sequence_s for r in own]) + by_context * mean
        base = np.array([r.fixed_s for r in own]) + levels[:, None] * by_member
        pairs = fresh * (cached + 0.5 * (fresh + 1.0))
        whole = np.array(
            [r.token_s * fresh + r.pair_s * pairs + r.context_token_s * cached for r in own]
        )
        joined = base[:, None, :] + whole.T
        plain = base.max(axis=1)
        prompts = joined.max(axis=2) - plain[:, None]
        prompts[0] = joined[0].max(axis=1)
        return _Chain(
            steps=steps,
            rho=rho,
            rates=rates,
            levels=levels,
            plain=plain,
            prompts=prompts,
            busy=prompts @ rates,
            tight=base.argmax(axis=1),
            tight_prompt=joined.argmax(axis=2),
            by_context=by_context,
            by_member=by_member,
            mix=mix,
            room_slope=room_slope,
        )


def _entry(chain: _Chain) -> tuple[Floats, Floats]:
    """What passes before a request takes part, by batch and kind, and d of that / d r.

    Half of a step that goes on, and what its own prompt adds to one.
    """
    half = 0.5 * chain.plain
    half[0] = 0.0
    slope = chain.by_context[chain.tight]
    lift = chain.levels[:, None] * chain.mix
    own = (chain.by_context[chain.tight_prompt] - 0.5 * slope[:, None])[:, :, None]
    moved = own * lift[:, None, :]
    member = chain.by_member[chain.tight[-1]]
    by_room = chain.by_member[chain.tight_prompt[-1]] - 0.5 * member
    moved[-1] += np.outer(by_room, chain.room_slope)
    return half[:, None] + chain.prompts, moved
