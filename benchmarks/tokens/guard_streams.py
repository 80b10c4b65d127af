"""Streams of spending for breakers: cut from a trace, or drawn; and breakers run on many at once.

The breaker here is written anew, for many streams side by side, so that it is also a check on the
one of `weft.tokens.guards`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from weft.core.errors import InputError
from weft.tokens.guards import Baseline, Spend, learn_baseline
from weft.tokens.guards.evidence import BETS, unbegun
from weft.tokens.guards.odds import Floats

__all__ = ["DRAWN", "Stream", "cuts", "read_stream", "spends", "thinned", "trips"]

USD_IN, USD_OUT = 1.25e-6, 10e-6
"""List prices of gpt-5 in 2026, as in the other parts: of a token of input and of output."""


@dataclass(frozen=True, slots=True)
class Stream:
    """When calls were, and what they cost [calls]."""

    at: Floats
    usd: Floats

    def __getitem__(self, part: slice) -> Stream:
        return Stream(self.at[part], self.usd[part])

    def __len__(self) -> int:
        return len(self.at)


def read_stream(path: Path, *, tokens: bool = False) -> Stream:
    """The Azure trace, priced; or its tokens, each worth the same."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    at = np.array([datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp() for row in rows])
    read = np.array([float(row["ContextTokens"]) for row in rows])
    made = np.array([float(row["GeneratedTokens"]) for row in rows])
    return Stream(at - at[0], read + made if tokens else read * USD_IN + made * USD_OUT)


def thinned(stream: Stream, keys: int, rng: np.random.Generator) -> Iterator[Stream]:
    """Each call given to one of some keys, drawn: streams that are as slow as those of one key."""
    own = rng.integers(keys, size=len(stream))
    for key in range(keys):
        yield Stream(stream.at[own == key], stream.usd[own == key])


CUTS = ((0, 1 / 2, 1 / 2, 1), (1 / 2, 1, 0, 1 / 2), (0, 1 / 3, 1 / 3, 1), (2 / 3, 1, 0, 2 / 3))
"""Of a stream: what is learnt from, and what is held out, from and to; forward and backward."""


def cuts(stream: Stream) -> Iterator[tuple[Stream, Stream]]:
    """What to learn from, and what to watch."""
    for a, b, c, d in CUTS:
        size = len(stream)
        yield stream[int(a * size) : int(b * size)], stream[int(c * size) : int(d * size)]


def spends(stream: Stream, progress: Floats | None = None) -> list[Spend]:
    """As events."""
    made = np.zeros(len(stream)) if progress is None else progress
    return [
        Spend(at=float(a), usd=float(u), progress=float(p))
        for a, u, p in zip(stream.at, stream.usd, made, strict=True)
    ]


def _poisson(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    return rng.exponential(1.0, shape), rng.lognormal(0.0, 1.0, shape)


def _heavy(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    return rng.exponential(1.0, shape), 1.0 + rng.pareto(1.5, shape)


def _bursts(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """Three times as fast in stretches of some 50 calls, between stretches of some 200."""
    state = np.zeros(shape[0], dtype=bool)
    gaps = rng.exponential(1.0, shape)
    for call in range(shape[1]):
        turns = rng.random(shape[0]) < np.where(state, 1.0 / 50.0, 1.0 / 200.0)
        state ^= turns
        gaps[:, call] /= np.where(state, 3.0, 1.0)
    return gaps, rng.lognormal(0.0, 1.0, shape)


def _drifting(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """The logarithm of the rate is autoregressive, with a spread of 0.25 and a memory of 100."""
    memory, spread = np.exp(-1.0 / 100.0), 0.25
    level = rng.normal(0.0, spread, shape[0])
    gaps = rng.exponential(1.0, shape)
    for call in range(shape[1]):
        gaps[:, call] /= np.exp(level)
        noise = rng.normal(0.0, spread * np.sqrt(1.0 - memory**2), shape[0])
        level = memory * level + noise
    return gaps, rng.lognormal(0.0, 1.0, shape)


DRAWN: Mapping[str, Callable[[np.random.Generator, tuple[int, int]], tuple[Floats, Floats]]] = {
    "Poisson, lognormal costs": _poisson,
    "Poisson, Pareto costs without a variance": _heavy,
    "bursts of three times the rate": _bursts,
    "rates that wander": _drifting,
}
"""Gaps between calls and what they cost, of streams side by side [streams, calls]."""


def trips(bases: Sequence[Baseline], at: Floats, usd: Floats) -> Floats:
    """Number of the call at which breakers trip, from 0; infinite where they do not [streams].

    Args:
        bases: of each stream; all with as many scales, and without progress.
        at, usd: when calls were and what they cost [streams, calls].
    """
    found = np.full(len(bases), np.inf)
    count = len(bases[0].scales)
    for place in range(count):
        scales = [own.scales[place] for own in bases]
        width = max(len(own.speed.thresholds) for own in scales)
        limits = np.full((len(bases), width), np.inf)
        chances = np.ones((len(bases), width))
        bets = np.array([len(own.speed.thresholds) for own in scales]) * float(len(BETS))
        for row, own in enumerate(scales):
            limits[row, : len(own.speed.thresholds)] = own.speed.thresholds
            chances[row, : len(own.speed.chances)] = own.speed.chances
        used = np.isfinite(limits)
        size = np.array([own.usd for own in scales])
        needed = np.array([own.needed for own in bases]) * count
        since, spent = at[:, 0].copy(), np.zeros(len(bases))
        steps = np.zeros(len(bases), dtype=np.int64)
        played = np.zeros((len(bases), width, len(BETS)))
        rest = np.array([unbegun(own) for own in range(at.shape[1] + 2)])
        for call in range(1, at.shape[1]):
            spent += usd[:, call]
            rows = np.flatnonzero(spent >= size)
            if not rows.size:
                continue
            speed = np.log(spent[rows] / np.maximum(at[rows, call] - since[rows], 1e-3))
            steps[rows] += 1
            begun = (rest[steps[rows] - 1] - rest[steps[rows]]) / bets[rows]
            above = speed[:, np.newaxis] > limits[rows]
            paid = 1.0 + np.array(BETS) * (above / chances[rows] - 1.0)[..., np.newaxis]
            paid = paid * used[rows][..., np.newaxis]
            played[rows] = np.minimum((played[rows] + begun[:, None, None]) * paid, 1e300)
            enough = played[rows].sum(axis=(1, 2)) + rest[steps[rows]] >= needed[rows]
            late = rows[enough]
            found[late] = np.minimum(found[late], call)
            since[rows], spent[rows] = at[rows, call], 0.0
    return found


def learnt(gaps: Floats, usd: Floats, level: float) -> list[Baseline | None]:
    """Baselines of drawn streams [streams]; None where one cannot be learnt."""
    bases: list[Baseline | None] = []
    for own, paid in zip(np.cumsum(gaps, axis=1), usd, strict=True):
        try:
            bases.append(learn_baseline(spends(Stream(own, paid)), level=level))
        except InputError:
            bases.append(None)
    return bases
