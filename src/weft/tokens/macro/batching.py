"""Delays of a server that batches, in which all requests get a token at each step.

With n requests in its batch a step takes t(n) seconds, prompts that come along included
(`weft.tokens.macro.stepcost`). Each request leaves after o[k] steps: all in the batch share
n / t(n) tokens a second equally. Such a server is a symmetric queue. The chance of n requests is

    w(n) / sum w,   w(n) = w(n - 1) rho t(n) / n,   rho = sum r o

however long answers are distributed, and delays follow by Little's law. Beyond the batch of m
requests that fit, others wait, and w(n) = w(n - 1) rho t(m) / m.

Slopes are exact for that chain: d E[X] / d r[k] = Cov(X, d ln w / d r[k]) + E[d X / d r[k]].

Approximated are: who is in the batch, by the mix of all requests, weighted by the steps that they
stay; how prompts meet; the wait for a place in the batch, which would be known for answers without
memory only. `benchmarks/tokens/markets.py` compares with simulation.

Source: Kelly, Reversibility and Stochastic Networks, 1979, section 3.3 (symmetric queues).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from weft.core.errors import InfeasibleError, InputError
from weft.tokens.macro.congestion import Response, require_rates, require_stable
from weft.tokens.macro.stepcost import StepCost, step_cost
from weft.tokens.micro.estimate import Floats
from weft.tokens.serving.steps import StepTimes

__all__ = ["BatchServer", "Kind", "Occupancy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Requests of about one size.

    Attributes:
        fresh: tokens of the prompt that are computed.
        cached: tokens of the prompt whose keys and values are there already.
        output: tokens of the answer, one or more; on average, if they differ.
        square: mean square of these, if they differ: long answers are met in the batch more often.

    Raises:
        InputError: a number is negative, or there is no answer.
    """

    fresh: float
    cached: float = 0.0
    output: float
    square: float | None = None

    def __post_init__(self) -> None:
        is_good = self.fresh >= 0.0 and self.cached >= 0.0 and self.output >= 1.0
        if not (is_good and self.longest >= self.output * (1.0 - 1e-9)):
            raise InputError(
                need="tokens of at least zero, and an answer of at least one",
                got=f"{self}",
                hint="a request that was refused is none",
            )

    @property
    def longest(self) -> float:
        """Tokens of the answers of those who are met in the batch, on average."""
        return self.output if self.square is None else self.square / self.output


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
    cost: StepCost
    step: Floats  # t [N + 2]
    step_slope: Floats  # d t / d r, at a batch of the same size [N + 2, kinds]
    step_member: float  # d t / d n of the last
    mix: Floats  # d mean context / d r [kinds]
    room_slope: Floats  # d m / d r [kinds]

    @cached_property
    def ratio(self) -> float:
        """Of the chances of two states next to each other where requests wait."""
        return self.rho * float(self.step[-1] / self.levels[-1])

    @cached_property
    def chances(self) -> Floats:
        """Of the states 0 to N [N + 1]."""
        logs = np.cumsum(np.log(self.rho * self.step[1:-1] / self.levels[1:-1]))
        logs = np.concatenate([[0.0], logs])
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
        by_step = np.zeros_like(self.step_slope)
        by_step[1:] = self.step_slope[1:] / self.step[1:, None] + self.steps / self.rho
        by_room = self.step_member / self.step[-1] - 1.0 / self.levels[-1]
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
        # A full batch that is in balance takes in as many prompts as it gives answers.
        rho, mean, _ = self._mix(rates)
        room, _ = self._room(rates)
        prompts = np.array([room * float(rates.sum()) / rho])
        return rho / room * float(self._cost(rates, mean, np.array([room])).mean(prompts)[0])

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

    def _mix(self, rates: Floats) -> tuple[float, float, Floats]:
        """Of those in the batch: rho, the mean context, and d of that / d r [kinds]."""
        steps, context = self._sizes[2], self._places - 0.5 * self._longest
        rho = float(rates @ steps)
        mean = float(rates @ (steps * context)) / rho
        return rho, mean, (context - mean) * steps / rho

    def _room(self, rates: Floats) -> tuple[float, Floats]:
        """Requests that the batch has room for, and d of that / d r [kinds].

        A request has its place from the first step on, although its answer takes it by and by.
        """
        steps, place = self._sizes[2], self._places
        rho = float(rates @ steps)
        room = self.times.cache_tokens / (float(rates @ (steps * place)) / rho)
        if room > self.max_sequences:
            return float(self.max_sequences), np.zeros(self.kinds)
        held = self.times.cache_tokens / room
        return room, -room * (place / held - 1.0) * steps / rho

    @property
    def _sizes(self) -> Floats:
        """Fresh, cached and output tokens [3, kinds]."""
        return np.array([(k.fresh, k.cached, k.output) for k in self.sizes]).T

    @property
    def _longest(self) -> Floats:
        return np.array([kind.longest for kind in self.sizes])

    @property
    def _places(self) -> Floats:
        """Tokens that those in the batch take of the memory in the end [kinds]."""
        return self._sizes[:2].sum(axis=0) + self._longest

    def _cost(self, rates: Floats, context: float, levels: Floats) -> StepCost:
        fresh, cached, _ = self._sizes
        own = self.times.resources
        by_context = np.array([r.pair_s + r.context_token_s for r in own])
        by_member = np.array([r.token_s + r.sequence_s for r in own]) + by_context * context
        pairs = fresh * (cached + 0.5 * (fresh + 1.0))
        return step_cost(
            base=np.array([r.fixed_s for r in own]) + levels[:, None] * by_member,
            prompts=np.array(
                [r.token_s * fresh + r.pair_s * pairs + r.context_token_s * cached for r in own]
            ),
            rates=rates,
            by_context=by_context,
            by_member=by_member,
        )

    def _chain(self, rates: Floats) -> _Chain:
        rho, context, mix = self._mix(rates)
        room, room_slope = self._room(rates)
        levels = np.append(np.arange(float(int(room)) + 1.0), room)
        cost = self._cost(rates, context, levels)
        step = cost.settled()
        slope, member = cost.slopes(step, levels[:, None] * mix)
        return _Chain(
            rates=rates,
            steps=self._sizes[2],
            rho=rho,
            levels=levels,
            cost=cost,
            step=step,
            step_slope=slope,
            step_member=float(member[-1]),
            mix=mix,
            room_slope=room_slope,
        )


def _entry(chain: _Chain) -> tuple[Floats, Floats]:
    """What passes before a request takes part, by batch and kind, and d of that / d r.

    Half of a step that goes on, and what its own prompt adds to one.
    """
    own, moved, member = chain.cost.alone(chain.levels[:, None] * chain.mix)
    half, half_moved = 0.5 * chain.step, 0.5 * chain.step_slope
    half[0], half_moved[0] = 0.0, 0.0
    moved = moved + half_moved[:, None, :]
    moved[-1] += np.outer(member + 0.5 * chain.step_member, chain.room_slope)
    return half[:, None] + own, moved
