"""Limits that keep others from spending your money: how fast a key may spend, and on how little.

A bucket holds money. It fills at a rate up to a burst, and a call takes out what it is expected to
cost before it is made; when it ends, the difference to what it did cost is settled. So within any
T seconds

    spent <= burst + rate * T + in flight * (worst - expected)

where the last term is what the calls in flight may cost beyond what they were expected to. Nobody
gains by many calls, few large ones, or pauses.

A second bucket is filled by what a caller's own input costs, `amplification` times: who sends
little may make others pay for little. It is what keeps a short message from starting a thousand
calls of tools.

Source: token buckets: Turner, IEEE Communications Magazine 1986; RFC 2697.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from weft.core.errors import InputError
from weft.tokens.budgets.node import Cap
from weft.tokens.money import Money

__all__ = ["Bucket", "Limits", "Refused", "derive_limits", "earn", "settle", "take"]

_SECONDS = {"hourly": 3600.0, "daily": 86_400.0, "monthly": 28 * 86_400.0}
"""Of windows by the calendar; of a month, its shortest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Money of one key.

    Attributes:
        burst: the most that it holds.
        rate: that flows in [money/s].
        holds: what is in it; below zero where calls cost more than was expected.
        at: as of when [s].

    Example:
        >>> from weft.tokens import usd
        >>> bucket = Bucket.full(burst=usd(1), rate=usd("0.01"), at=0.0)
        >>> bucket, refused = take(bucket, usd("0.9"), at=0.0)
        >>> bucket, refused = take(bucket, usd("0.2"), at=5.0)
        >>> refused.wait_s, take(bucket, usd("0.2"), at=10.0)[1]
        (5.0, None)
    """

    burst: Money
    rate: Money
    holds: Money
    at: float

    def __post_init__(self) -> None:
        if self.burst.nano < 0 or self.rate.nano < 0 or self.holds > self.burst:
            raise InputError(
                need="a burst and a rate of at least zero, and no more inside than the burst",
                got=f"burst {self.burst}, rate {self.rate} a second, {self.holds} inside",
                hint="derive_limits gives both",
            )

    @staticmethod
    def full(*, burst: Money, rate: Money, at: float) -> Bucket:
        """One that has not been used."""
        return Bucket(burst=burst, rate=rate, holds=burst, at=at)

    def filled(self, at: float) -> Bucket:
        """What it holds at a later time; a clock that is set back stands still."""
        if at <= self.at:
            return self
        gained = math.floor(min((at - self.at) * self.rate.nano, float(self._room)))
        full = gained >= self._room
        # Parts of a billionth stay in the time that has not been counted yet.
        counted = at if full or not self.rate.nano else self.at + gained / self.rate.nano
        return replace(self, holds=Money(self.holds.nano + gained, self.burst.currency), at=counted)

    @property
    def _room(self) -> int:
        return self.burst.nano - self.holds.nano


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why a call may not be made now.

    Attributes:
        short: what is missing.
        wait_s: until there is enough; infinite if there never will be [s].
    """

    short: Money
    wait_s: float


def take(bucket: Bucket, expected: Money, *, at: float) -> tuple[Bucket, Refused | None]:
    """Before a call: take out what it is expected to cost.

    Args:
        bucket: of the key.
        expected: cost; its worst case where nobody knows better.
        at: now [s].

    Returns:
        The bucket, and a refusal if there is too little in it.

    Raises:
        InputError: the cost is negative.
    """
    _check(expected)
    now = bucket.filled(at)
    if expected <= now.holds:
        return replace(now, holds=now.holds - expected), None
    short = expected - now.holds
    fits = expected <= bucket.burst and bucket.rate.nano > 0
    return now, Refused(short=short, wait_s=short.nano / bucket.rate.nano if fits else math.inf)


def settle(bucket: Bucket, expected: Money, actual: Money, *, at: float) -> Bucket:
    """After a call: give back what it cost less, or take what it cost more.

    Raises:
        InputError: a cost is negative.
    """
    _check(expected)
    _check(actual)
    now = bucket.filled(at)
    return replace(now, holds=min(now.holds + expected - actual, now.burst))


def earn(bucket: Bucket, own_input: Money, amplification: float, *, at: float) -> Bucket:
    """For the bucket of amplification: what a caller's own input lets others pay.

    Args:
        bucket: whose rate is that of no input, most often zero.
        own_input: what the input that the caller sent costs; not that of tools or of what was
            answered before.
        amplification: money that each unit of it may make others pay.
        at: now [s].

    Raises:
        InputError: the cost or the amplification is negative.
    """
    _check(own_input)
    if not 0.0 <= amplification < math.inf:
        raise InputError(
            need="an amplification of at least zero", got=f"{amplification}", hint="20, for example"
        )
    now = bucket.filled(at)
    gained = Money(math.floor(own_input.nano * amplification), own_input.currency)
    return replace(now, holds=min(now.holds + gained, now.burst))


def _check(cost: Money) -> None:
    if cost.nano < 0:
        raise InputError(
            need="a cost of at least zero", got=f"{cost}", hint="refunds are no spending"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of each key, so that a budget outlasts an attack.

    Attributes:
        burst: at once.
        rate: a second, after it.
        stolen: keys for which this is derived.
        lost: the most that they spend until somebody reacts, worst cases in flight included.
        lasts_s: how long the budget lasts if nobody does [s].
    """

    burst: Money
    rate: Money
    stolen: int
    lost: Money
    lasts_s: float

    def bucket(self, at: float) -> Bucket:
        """A key's bucket, full."""
        return Bucket.full(burst=self.burst, rate=self.rate, at=at)


def derive_limits(
    cap: Cap,
    *,
    keys: int,
    stolen: int = 1,
    share: float = 0.1,
    react_s: float = 3600.0,
    peak: float = 10.0,
    excess: Money | None = None,
    in_flight: int = 1,
) -> Limits:
    """Limits of keys that share a budget, from how much of it may be lost.

    All keys together may go on spending at the budget's own pace, each up to `peak` times its
    share of it. Stolen ones, until somebody reacts, spend no more than `share` of the budget:

        stolen * (burst + rate * react_s + in_flight * excess) <= share * cap

    The rate is lowered where that would leave less than no burst.

    Args:
        cap: of the budget, with a window.
        keys: that share it.
        stolen: keys that may be in wrong hands at once.
        share: of the budget that may be lost.
        react_s: until somebody reacts: an hour by day, or what the breaker needs [s].
        peak: how much faster than on average a key may spend for long.
        excess: what a call may cost beyond what is taken out for it; none if worst cases are.
        in_flight: calls of a key at once.

    Raises:
        InputError: there is no window, a number is none, or calls in flight may cost too much.

    Example:
        >>> from weft.tokens import usd
        >>> limits = derive_limits(Cap.of(usd(1000), "daily"), keys=100, stolen=2)
        >>> limits.rate, limits.burst, limits.lost
        (0.001157407 usd, 45.8333348 usd, 100 usd)
    """
    extra = Money(0, cap.most.currency) if excess is None else excess
    _check_numbers(share, extra, keys, stolen, in_flight)
    each = math.floor(share * cap.most.nano / stolen) - in_flight * extra.nano
    if each <= 0:
        raise InputError(
            need=f"calls in flight that cost less than {share:.0%} of {cap}",
            got=f"{stolen * in_flight} of them, up to {extra} more each than expected",
            hint="reserve worst cases, or allow fewer calls at once",
        )
    rate = math.floor(peak * cap.most.nano / _window_s(cap, react_s, peak) / keys)
    if rate * react_s > each:
        rate = math.floor(each / react_s)
    burst = each - math.ceil(rate * react_s)
    at_once = stolen * (burst + in_flight * extra.nano)
    return Limits(
        burst=Money(burst, cap.most.currency),
        rate=Money(rate, cap.most.currency),
        stolen=stolen,
        lost=Money(math.ceil(stolen * rate * react_s) + at_once, cap.most.currency),
        lasts_s=(cap.most.nano - at_once) / (stolen * rate) if rate else math.inf,
    )


def _check_numbers(share: float, extra: Money, *counts: int) -> None:
    if not (0.0 < share <= 1.0 and extra.nano >= 0 and min(counts) >= 1):
        raise InputError(
            need="keys and calls of at least one, a share from 0 to 1, an excess of at least zero",
            got=f"{', '.join(map(str, counts))} keys and calls, share {share}, excess {extra}",
            hint="derive_limits(Cap.of(usd(1000), 'daily'), keys=100)",
        )


def _window_s(cap: Cap, react_s: float, peak: float) -> float:
    """Length of a budget's window [s].

    Raises:
        InputError: it has none, or a time or factor is none.
    """
    if not (0.0 <= react_s < math.inf and 0.0 < peak < math.inf):
        raise InputError(
            need="a time of at least zero, and a factor above it",
            got=f"{react_s} s to react, peak {peak}",
            hint="react_s=3600.0, peak=10.0",
        )
    window_s = _SECONDS.get(cap.window.kind, float(cap.window.length_s))
    if window_s <= 0.0:
        raise InputError(
            need="a budget with a window", got=f"{cap}", hint='Cap.of(usd(1000), "daily")'
        )
    return window_s
