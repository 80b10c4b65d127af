"""How much is spent before a breaker trips: weft's, a fixed cap, and a multiple of the median.

The foils look at what was spent in the last W seconds: against a cap, or against the median of all
windows so far. Thresholds are tuned in two ways: on the very streams on which false alarms are
counted, so that as few of them trip as the breaker is allowed, which nobody can do beforehand; and
on the past, with a margin over the highest that was seen. W is the one that is best for each. The
breaker is told nothing but its baseline and its level.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.tokens.guard_streams import Stream, spends
from weft.core.errors import InputError
from weft.tokens.guards import Baseline, Breaker, learn_baseline
from weft.tokens.guards.odds import Floats

__all__ = [
    "CALLS",
    "FACTORS",
    "FOILS",
    "WINDOWS_S",
    "Foil",
    "attacked",
    "breaker_delay",
    "cap_trips",
    "learn",
    "run_foil",
]

FACTORS = (2, 3, 10, 100)
"""How many times as fast money goes under an attack."""
WINDOWS_S = (2.0, 10.0, 30.0, 100.0, 300.0)
"""Of the foils [s]."""
CALLS = 4000
"""Of an attack, after which it counts as missed."""

Pair = tuple[Stream, Stream]
"""What was learnt from, and what is watched."""


def learn(past: Stream, level: float) -> Baseline | None:
    """A baseline; None where there is too little to learn from."""
    try:
        return learn_baseline(spends(past), level=level)
    except InputError:
        return None


def attacked(watched: Stream, start: int, factor: float) -> Stream:
    """A stream whose calls come so many times as fast from one on, over and over again."""
    rest = watched[start:]
    gaps = np.diff(watched.at[start - 1 :])
    again = -(-CALLS // len(rest))
    gaps = np.tile(gaps, again)[:CALLS] / factor
    return Stream(watched.at[start - 1] + np.cumsum(gaps), np.tile(rest.usd, again)[:CALLS])


def breaker_delay(base: Baseline, watched: Stream, start: int, attack: Stream) -> float:
    """Spent from the start of an attack until the breaker trips; infinite if it does not [usd]."""
    breaker = Breaker(base)
    for own in spends(watched[:start]):
        breaker.observe(own)
    before = breaker.verdict().usd
    for own in spends(attack):
        told = breaker.observe(own)
        if told.tripped:
            return told.usd - before
    return np.inf


def _sums(stream: Stream, window_s: float) -> Floats:
    """Spent in the seconds up to each call [usd]."""
    total = np.concatenate([[0.0], np.cumsum(stream.usd)])
    first = np.searchsorted(stream.at, stream.at - window_s, side="right")
    return total[1:] - total[first]


def _medians(stream: Stream, window_s: float) -> Floats:
    """Median of whole windows that ended before each call [usd]; infinite before there are five."""
    place = ((stream.at - stream.at[0]) // window_s).astype(np.int64)
    totals = np.bincount(place, stream.usd)
    seen: list[float] = []
    found = np.full(len(totals), np.inf)
    for window, total in enumerate(totals):
        if len(seen) >= 5:
            found[window] = max(seen[len(seen) // 2], 1e-12)
        insort(seen, float(total))
    return found[place]


def _joined(past: Stream, *others: Stream) -> Stream:
    """One after another, the first as long ago as it takes to be before the second."""
    at, usd = [past.at], [past.usd]
    for own in others:
        shift = 0.0 if own.at[0] >= at[-1][-1] else at[-1][-1] - own.at[0] + 1e-3
        at.append(own.at + shift)
        usd.append(own.usd)
    return Stream(np.concatenate(at), np.concatenate(usd))


FOILS: Mapping[str, Callable[[Stream, float], Floats]] = {
    "fixed cap": _sums,
    "multiple of the median": lambda stream, window_s: (
        _sums(stream, window_s) / _medians(stream, window_s)
    ),
}
"""What each compares with its threshold, at each call."""


MARGIN = 1.5
"""Over the highest that was seen before, for foils that are tuned on the past: the breaker's own
tolerance."""


@dataclass(frozen=True, slots=True)
class Foil:
    """What came of a foil.

    Attributes:
        window_s: that was best [s].
        false: share of streams without an attack on which it trips.
        delays: spent until it trips, infinite if it does not [usd].
    """

    window_s: float
    false: float
    delays: Floats


def run_foil(
    foil: str,
    pairs: Sequence[Pair],
    starts: Sequence[int],
    factor: float,
    *,
    allowed: float | None,
) -> Foil:
    """A foil at its best window.

    Args:
        foil: one of FOILS.
        pairs: streams.
        starts: calls at which attacks begin.
        factor: of their speed.
        allowed: share of streams without an attack on which it may trip, for a threshold that is
            tuned on these streams; None for MARGIN over what was seen before, for each stream.
    """
    return min(
        (_tuned(foil, pairs, starts, factor, window_s, allowed) for window_s in WINDOWS_S),
        key=lambda own: (own.false if allowed is None else 0.0, float(np.median(own.delays))),
    )


def _tuned(
    foil: str,
    pairs: Sequence[Pair],
    starts: Sequence[int],
    factor: float,
    window_s: float,
    allowed: float | None,
) -> Foil:
    before: list[float] = []
    peaks: list[float] = []
    for past, watched in pairs:
        own = FOILS[foil](_joined(past, watched), window_s)
        before.append(float(np.max(own[: len(past)])))
        peaks.append(float(np.max(own[len(past) :])))
    if allowed is None:
        limits = [MARGIN * peak for peak in before]
    else:
        limits = [sorted(peaks, reverse=True)[int(allowed * len(peaks))]] * len(pairs)
    delays: list[float] = []
    for (past, watched), start, limit in zip(pairs, starts, limits, strict=True):
        attack = attacked(watched, start, factor)
        own = FOILS[foil](_joined(past, watched[:start], attack), window_s)
        hit = np.flatnonzero(own[len(past) + start :] > limit)
        delays.append(float(np.cumsum(attack.usd)[hit[0]]) if hit.size else np.inf)
    false = float(np.mean([peak > limit for peak, limit in zip(peaks, limits, strict=True)]))
    return Foil(window_s, false, np.array(delays))


def cap_trips(past: Stream, attack: Stream, window_s: float) -> bool:
    """Whether a fixed cap that is tuned on the past is exceeded."""
    return bool(_sums(attack, window_s).max() > MARGIN * _sums(past, window_s).max())
