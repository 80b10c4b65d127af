"""What honest work does how often: thresholds of a score, and chances to exceed them, from above.

Scores that were seen give thresholds, and of each a bound on the chance that the next score exceeds
it. Three things make such a chance higher than the share that was seen. Few scores were seen: the
bound is Clopper and Pearson's, at a doubt that all thresholds share. Scores come in clumps, so that
one that is high makes the next one likelier to be: odds are raised by as much as they were at most
after stretches of high scores. And there is a tolerance: what is higher by less than that is still
as it was.

Source: Clopper and Pearson, Biometrika 1934; for a threshold that is itself a score, the same bound
by the law of order statistics (David and Nagaraja 2003, section 2.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from weft.core.errors import InputError

__all__ = ["Floats", "Odds", "chance_bound", "learn_odds"]

Floats: TypeAlias = NDArray[np.float64]

SHARES = (0.0, 0.01, 0.03, 0.1, 0.25, 0.5)
"""Of scores beyond a threshold. Chosen: from beyond all that were seen, for jumps, to the median,
for small shifts that last."""
STRETCHES = (1, 2, 4, 8, 16, 32)
"""Lengths after which clumps are looked for. Chosen."""
SEEN = 20
"""Stretches from which a share is taken. Chosen: of fewer, the largest of many shares is noise."""
EXPECTED = 2.0
"""High scores after them that there would be without clumps, at least. Chosen, for the same
reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Odds:
    """Thresholds, rising, and for each an upper bound on the chance that a score exceeds it.

    Attributes:
        clumping: by what odds were raised, since high scores come together.
    """

    thresholds: tuple[float, ...]
    chances: tuple[float, ...]
    clumping: float = 1.0

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.thresholds, self.thresholds[1:], strict=False))
        fit = len(self.thresholds) == len(self.chances) and all(
            0.0 < chance <= 1.0 for chance in self.chances
        )
        if not rising or not fit or not all(map(math.isfinite, self.thresholds)):
            raise InputError(
                need="thresholds that rise, and a chance above 0 for each",
                got=f"thresholds {self.thresholds}, chances {self.chances}",
                hint="learn_odds makes them of scores",
            )

    def exceeded(self, score: float) -> Floats:
        """Of each threshold, 1 where the score is beyond it [thresholds]."""
        return (score > np.array(self.thresholds)).astype(np.float64)


def chance_bound(seen: int, of: int, doubt: float) -> float:
    """The largest chance with which so few can have been seen, but for a doubt.

    Args:
        seen: how often.
        of: of how many.
        doubt: chance that the bound is too low.

    Example:
        >>> round(chance_bound(0, 100, 0.05), 4), chance_bound(7, 7, 0.05)
        (0.0295, 1.0)
    """
    if seen >= of:
        return 1.0
    counts = np.arange(seen + 1.0)
    ways = np.array(
        [math.lgamma(of + 1.0) - math.lgamma(k + 1.0) - math.lgamma(of - k + 1.0) for k in counts]
    )
    low, high = seen / of, 1.0
    while high - low > 1e-9 * high:
        middle = 0.5 * (low + high)
        logs = ways + counts * math.log(middle) + (of - counts) * math.log1p(-middle)
        if float(np.exp(logs).sum()) > doubt:
            low = middle
        else:
            high = middle
    return high


def learn_odds(scores: Sequence[float] | Floats, *, doubt: float, tolerance: float = 0.0) -> Odds:
    """Thresholds and chances, from scores in the order in which they came.

    Args:
        scores: of honest work; may be infinite.
        doubt: chance that any of the bounds is too low, were scores drawn alike.
        tolerance: by how much thresholds are above the scores.

    Raises:
        InputError: there are none, or one is not a number.
    """
    own = np.asarray(scores, dtype=np.float64)
    if own.size == 0 or bool(np.isnan(own).any()):
        raise InputError(
            need="scores of honest work",
            got=f"{own.size} of them, {int(np.isnan(own).sum())} not a number",
            hint="learn from a longer log",
        )
    picked = _thresholds(own)
    lift = _clumping(own, picked)
    chances: list[float] = []
    for value in picked:
        bound = chance_bound(int((own > value).sum()), own.size, doubt / max(len(picked), 1))
        odds = lift * bound / max(1.0 - bound, 1e-12)
        chances.append(min(odds / (1.0 + odds), 1.0))
    return Odds(
        thresholds=tuple(value + tolerance for value in picked),
        chances=tuple(chances),
        clumping=lift,
    )


def _thresholds(scores: Floats) -> list[float]:
    """Scores that about the wanted shares are beyond; equal scores are on one side."""
    values = np.unique(scores[np.isfinite(scores)])
    if values.size == 0:
        return []
    beyond = scores.size - np.searchsorted(np.sort(scores), values, side="right")
    wanted = [share * scores.size for share in SHARES]
    places = {int(np.argmin(np.abs(np.log((beyond + 1.0) / (own + 1.0))))) for own in wanted}
    return [float(values[place]) for place in sorted(places)]


def _clumping(scores: Floats, thresholds: Sequence[float]) -> float:
    """The most by which odds of a high score are raised after a stretch half of which were high."""
    most = 1.0
    for value in thresholds:
        high = (scores > value).astype(np.float64)
        share = float(high.mean())
        sums = np.concatenate([[0.0], np.cumsum(high)])
        for length in STRETCHES:
            after = high[length:][2.0 * (sums[length:-1] - sums[: -length - 1]) >= length]
            if after.size < max(SEEN, EXPECTED / max(share, 1e-12)) or share == 1.0:
                continue
            sure = _at_least(float(after.sum()), after.size)
            most = max(most, sure / (1.0 - sure) * (1.0 - share) / share)
    return most


def _at_least(seen: float, of: int) -> float:
    """A share less one standard error (Wilson, JASA 1927): the largest of many is mostly noise."""
    centre, width = seen + 0.5, math.sqrt(seen * (of - seen) / of + 0.25)
    return max(centre - width, 0.0) / (of + 1.0)
