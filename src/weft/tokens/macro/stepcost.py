"""How long a step takes on average, with the prompts that come along.

With n requests in the batch and j prompts, of p seconds each on average, a step takes

    S(n, j) = max over resources of base(n) + j p

Prompts come while steps go on: j is Poisson with mean y = R t, where R is the rate of all requests
and t the mean of S over j, which is a fixed point. Prompts find resources that answers leave idle,
so that the first costs less than the next. Of one prompt alone, all kinds are told apart; of
several at once, only their mean. Beyond some j the same resource is the busiest, and S is a line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from weft.tokens.micro.estimate import Floats, Ints

__all__ = ["StepCost", "step_cost"]

MOST_PROMPTS = 512
"""In a step, up to which the busiest resource is looked at. Chosen: a step with more is nothing but
prompts."""
_ROUNDS, _CLOSE = 100, 1e-15
_LOG_FACTORIALS: Floats = np.array([math.lgamma(j + 1.0) for j in range(MOST_PROMPTS)])


@dataclass(frozen=True, kw_only=True, eq=False)
class StepCost:
    """Steps with batches of several sizes.

    Attributes:
        rates: of requests [kinds] [1/s].
        prompts: seconds of a prompt, by resource [resources, kinds].
        mean_prompt: of all [resources].
        last: the resource that is the busiest with many prompts.
        base: seconds without prompts [levels, resources].
        plain: of the busiest of them [levels].
        over: of S, what is beyond the line of the last resource, by number of prompts [levels, j].
        tight: the busiest resource, by number of prompts [levels, j].
        one: S with one prompt, by kind [levels, kinds].
        tight_one: and the busiest resource [levels, kinds].
        by_context, by_member: seconds of a token of context more in a request of the batch, and of
            a request more [resources].
    """

    rates: Floats
    prompts: Floats
    mean_prompt: Floats
    last: int
    base: Floats
    plain: Floats
    over: Floats
    tight: Ints
    one: Floats
    tight_one: Ints
    by_context: Floats
    by_member: Floats

    @property
    def whole(self) -> float:
        """Rate of prompts that take any time [1/s]."""
        return float(self.rates.sum()) if self.mean_prompt[self.last] > 0.0 else 0.0

    def chances(self, prompts: Floats) -> Floats:
        """Of j prompts in a step, by their mean number [levels] -> [levels, j]."""
        count: Floats = np.arange(self.over.shape[1], dtype=np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            powers = np.where(count == 0, 0.0, count * np.log(prompts)[:, None])
        return np.exp(powers - prompts[:, None] - _LOG_FACTORIALS[: len(count)])

    def mean(self, prompts: Floats) -> Floats:
        """Seconds of a step, by the mean number of prompts in it [levels]."""
        line = self.base[:, self.last] + prompts * self.mean_prompt[self.last]
        return line + (self.chances(prompts) * self.over).sum(axis=1)

    def rise(self, prompts: Floats) -> Floats:
        """Of that, by the mean number of prompts [levels]."""
        chances = self.chances(prompts)
        before = np.pad(chances, ((0, 0), (1, 0)))[:, :-1]
        return self.mean_prompt[self.last] + ((before - chances) * self.over).sum(axis=1)

    def settled(self) -> Floats:
        """Seconds of a step, with as many prompts as come meanwhile [levels].

        By Newton's method, which goes up to the fixed point from below, since means are convex.
        """
        step = self.plain
        for _ in range(_ROUNDS):
            prompts = self.whole * step
            off = self.mean(prompts) - step
            step = step + off / (1.0 - self.whole * self.rise(prompts))
            if float(np.max(np.abs(off) - _CLOSE * step)) <= 0.0:
                break
        return step

    def slopes(self, step: Floats, lift: Floats) -> tuple[Floats, Floats]:
        """Of settled steps: d t / d r [levels, kinds], and d t / d n [levels].

        Args:
            step: they [levels].
            lift: d tokens of context in the batch / d r [levels, kinds].
        """
        prompts = self.whole * step
        chances = self.chances(prompts)
        rise = self.rise(prompts)
        which = np.arange(len(self.mean_prompt))
        # Of two prompts and more, and of none, by the resource that is the busiest then.
        count: Floats = np.arange(chances.shape[1], dtype=np.float64)
        several: Floats = np.where(count == 1.0, 0.0, chances)
        is_tight = self.tight[:, :, None] == which
        held: Floats = (several[:, :, None] * is_tight).sum(axis=1)
        times: Floats = ((several * count)[:, :, None] * is_tight).sum(axis=1)
        single = chances[:, 1] if chances.shape[1] > 1 else np.zeros(len(chances))
        whole, share = float(self.rates.sum()), self.rates / self.rates.sum()
        alone = (share[:, None] * (self.tight_one[:, :, None] == which)).sum(axis=1)
        held += single[:, None] * alone
        # And beyond all that is looked at, of the last.
        held[:, self.last] += 1.0 - chances.sum(axis=1)
        times[:, self.last] += prompts - (chances * count).sum(axis=1)
        explicit: Floats = lift * (held @ self.by_context)[:, None]
        if self.whole > 0.0:
            explicit += times @ (self.prompts - self.mean_prompt[:, None]) / whole
            explicit += single[:, None] * (self.one - (self.one @ share)[:, None]) / whole
            explicit += (rise * step)[:, None]
        fixed = 1.0 - self.whole * rise
        return explicit / fixed[:, None], held @ self.by_member / fixed

    def alone(self, lift: Floats) -> tuple[Floats, Floats, Floats]:
        """What one prompt adds to a step without others, by kind.

        Args:
            lift: as above.

        Returns:
            Seconds [levels, kinds], d of them / d r [levels, kinds, kinds], and d of them / d n of
            the last level [kinds].
        """
        plain = self.tight[:, 0]
        context = self.by_context[self.tight_one] - self.by_context[plain][:, None]
        member = self.by_member[self.tight_one[-1]] - self.by_member[plain[-1]]
        added = self.one - self.plain[:, None]
        added[0] = self.one[0]
        return added, context[:, :, None] * lift[:, None, :], member


def step_cost(
    *, base: Floats, prompts: Floats, rates: Floats, by_context: Floats, by_member: Floats
) -> StepCost:
    """Work out what steps take with any number of prompts.

    Args:
        base: seconds without prompts [levels, resources].
        prompts: seconds of a prompt [resources, kinds].
        rates: of requests, some above zero [kinds] [1/s].
        by_context, by_member: as of a `StepCost`.
    """
    mean = prompts @ rates / rates.sum()
    last = int(np.argmax(mean))
    behind = np.delete(mean[last] - mean, last)
    ahead = np.delete(base - base[:, [last]], last, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        until = np.where(ahead > 0.0, ahead / behind, 0.0)
    most = float(until.max(initial=0.0)) if mean[last] > 0.0 else 0.0
    count = np.arange(min(int(min(most, MOST_PROMPTS)) + 2, MOST_PROMPTS) if mean[last] else 1)
    spent = base[:, None, :] + count[:, None] * mean
    joined = base[:, None, :] + prompts.T
    one = joined.max(axis=2)
    whole = spent.max(axis=2)
    if len(count) > 1:
        whole[:, 1] = one @ (rates / rates.sum())
    return StepCost(
        rates=rates,
        prompts=prompts,
        mean_prompt=mean,
        last=last,
        base=base,
        plain=spent[:, 0].max(axis=1),
        over=whole - spent[:, :, last],
        tight=spent.argmax(axis=2),
        one=one,
        tight_one=joined.argmax(axis=2),
        by_context=by_context,
        by_member=by_member,
    )
