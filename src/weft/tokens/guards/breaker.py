"""The burn-rate breaker: trips when money goes faster than it did, and buys less progress.

Time is measured in money: a block ends when so much was spent. A block is fast if it took little
time, and poor if it brought little progress; both are compared with blocks of a baseline, and
evidence adds up over blocks (`evidence`). Spending fast is fine where it buys progress, so the
breaker trips only when there is evidence of both at once; without progress in the baseline it goes
by speed alone. Blocks of several sizes are followed, small ones for jumps and large ones for small
shifts; each needs as many times the evidence as there are sizes.

What is promised, at level a: money goes as in the baseline, or buys as much, if given all that
came before each block, the chance to exceed each threshold is at most its bound (`odds`). Then the
chance of ever tripping is at most a, half of it for bounds that were learnt too low, were blocks
drawn alike. Nothing is said of how scores are distributed, and they may depend on the past.

A block is a few calls, so an event costs a comparison, and state is a few dozen numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

from weft.core.errors import FileError, InputError
from weft.tokens.guards.evidence import BETS, capital, part, play, returns
from weft.tokens.guards.odds import Floats, Odds, learn_odds

__all__ = ["Baseline", "Breaker", "Scale", "Spend", "Verdict", "blocks", "learn_baseline"]

SIZES = (4, 16, 64)
"""Calls of mean cost that a block is worth. Chosen: a jump is seen within a few blocks, and blocks
of 64 calls vary little."""
FEWEST = 40
"""Blocks from which a size is used. Chosen: of fewer, no chance is bounded well below one half."""
TOLERANCE = 1.5
"""Measured on the Azure conversations of 2023, in which money a minute is 0.7 to 1.3 times its mean
within the hour, and tokens a minute 0.6 to 1.6 times: learnt from a half or a third and tried on
the rest, 1.0 trips on money, 1.25 and 1.35 on tokens, and 1.5 on neither."""
SHORTEST_S = 1e-3
"""A block takes no less. Logs are written in milliseconds by many."""
_FORM = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """Something that happened: money was spent, or progress made, or both.

    Attributes:
        at: when [s].
        usd: spent [usd].
        progress: how much: one for each task that passed, commit, or test that turned green.
    """

    at: float
    usd: float = 0.0
    progress: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.at) and 0.0 <= self.usd < math.inf and self.progress >= 0.0):
            raise InputError(
                need="a time, and amounts of at least zero",
                got=f"at {self.at}, {self.usd} usd, progress {self.progress}",
                hint="what was given back later is no negative spending: leave it out",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Blocks of one size, and how they were in the baseline.

    Attributes:
        usd: a block ends when so much was spent [usd].
        count: blocks of the baseline.
        speed: of the logarithm of usd per second.
        poverty: of the logarithm of usd per progress; None where there was no progress.
    """

    usd: float
    count: int
    speed: Odds
    poverty: Odds | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """How money went when all was well.

    Attributes:
        level: chance of a false alarm.
        horizon: blocks that it holds for; None for ever. See `evidence`.
        tolerance: factor by which speed may be above that of the baseline.
        scales: smallest blocks first.
        usd_per_s: on average [usd/s].
        usd_per_progress: on average [usd]; None where there was none.
        seconds: how long it was [s].
    """

    level: float
    horizon: int | None
    tolerance: float
    scales: tuple[Scale, ...]
    usd_per_s: float
    usd_per_progress: float | None
    seconds: float

    @property
    def needed(self) -> float:
        """Evidence at which the breaker trips; half of the level is left for what was learnt."""
        return 2.0 / self.level

    def to_json(self) -> str:
        """As one line."""
        return json.dumps({"weft": "baseline", "form": _FORM, **asdict(self)})

    @staticmethod
    def from_json(text: str) -> Baseline:
        """Read what `to_json` wrote.

        Raises:
            FileError: it is something else.
        """
        try:
            told = json.loads(text)
            if told.pop("weft") != "baseline" or told.pop("form") != _FORM:
                raise ValueError("not a baseline of this version")
            told["scales"] = tuple(_scale(own) for own in told["scales"])
            return Baseline(**told)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FileError(
                need="a baseline as weft writes it", got=str(error), hint="learn it again"
            ) from error


def _scale(told: Mapping[str, Any]) -> Scale:
    poverty = told["poverty"]
    return Scale(
        usd=told["usd"],
        count=told["count"],
        speed=_odds(told["speed"]),
        poverty=None if poverty is None else _odds(poverty),
    )


def _odds(told: Mapping[str, Any]) -> Odds:
    return Odds(
        thresholds=tuple(told["thresholds"]),
        chances=tuple(told["chances"]),
        clumping=told["clumping"],
    )


def blocks(spends: Iterable[Spend], usd: float) -> tuple[Floats, Floats]:
    """Speeds and poverties of blocks.

    Args:
        spends: in order.
        usd: size of a block [usd].

    Returns:
        Logarithms of usd per second, and of usd per progress, infinite where there was none
        [blocks].
    """
    own = _Block(usd=usd)
    ended = [score for spend in spends if (score := own.add(spend)) is not None]
    both = np.array(ended, dtype=np.float64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


@dataclass(slots=True)
class _Block:
    """A block that is being spent."""

    usd: float
    since: float | None = None
    spent: float = 0.0
    progress: float = 0.0

    def add(self, spend: Spend) -> tuple[float, float] | None:
        """Its scores, if it ends here."""
        if self.since is None:
            self.since = spend.at  # how long the first call was waited for is not known
            return None
        self.spent += spend.usd
        self.progress += spend.progress
        if self.spent < self.usd:
            return None
        seconds = max(spend.at - self.since, SHORTEST_S)
        poverty = math.log(self.spent / self.progress) if self.progress > 0.0 else math.inf
        scores = math.log(self.spent / seconds), poverty
        self.since, self.spent, self.progress = max(spend.at, self.since), 0.0, 0.0
        return scores


def learn_baseline(
    spends: Sequence[Spend],
    *,
    level: float = 0.01,
    tolerance: float = TOLERANCE,
    horizon: int | None = None,
    sizes: Sequence[int] = SIZES,
) -> Baseline:
    """From a time when all was well.

    Args:
        spends: in order.
        level: chance of a false alarm.
        tolerance: factor that speed and cost of progress may be above the baseline's: days differ.
        horizon: blocks that the level holds for; None for ever.
        sizes: calls of mean cost that blocks are worth.

    Raises:
        InputError: too few calls, no money, or a level or tolerance that is none.

    Example:
        >>> spends = [Spend(at=float(n), usd=0.01) for n in range(400)]
        >>> base = learn_baseline(spends)
        >>> len(base.scales), round(base.usd_per_s, 3), base.usd_per_progress
        (1, 0.01, None)
    """
    if (
        not 0.0 < level < 1.0
        or not 1.0 <= tolerance < math.inf
        or (horizon is not None and horizon < 1)
    ):
        raise InputError(
            need="a level between 0 and 1, a tolerance of at least 1, a horizon of at least 1",
            got=f"level {level}, tolerance {tolerance}, horizon {horizon}",
            hint="level=0.01, tolerance=1.5",
        )
    paid = [spend.usd for spend in spends if spend.usd > 0.0]
    spent, progress = math.fsum(paid), math.fsum(own.progress for own in spends)
    each = spent / max(len(paid), 1)
    doubt = 0.5 * level / len(sizes)
    tried = (_scale_of(spends, size * each, doubt, math.log(tolerance)) for size in sorted(sizes))
    scales = [own for own in tried if own is not None]
    if not scales:
        raise InputError(
            need=f"a baseline of some {FEWEST * min(sizes)} calls that cost something",
            got=f"{len(paid)} of them",
            hint="learn from a longer time, or from calls of all agents together",
        )
    seconds = max(spends[-1].at - spends[0].at, SHORTEST_S)
    return Baseline(
        level=level,
        horizon=horizon,
        tolerance=tolerance,
        scales=tuple(scales),
        usd_per_s=spent / seconds,
        usd_per_progress=spent / progress if progress else None,
        seconds=seconds,
    )


def _scale_of(spends: Sequence[Spend], usd: float, doubt: float, slack: float) -> Scale | None:
    """Blocks of one size; None if there are too few."""
    if usd <= 0.0:
        return None
    speeds, poverties = blocks(spends, usd)
    if len(speeds) < FEWEST:
        return None
    working = any(own.progress > 0.0 for own in spends)
    return Scale(
        usd=usd,
        count=len(speeds),
        speed=learn_odds(speeds, doubt=doubt, tolerance=slack),
        poverty=learn_odds(poverties, doubt=doubt, tolerance=slack) if working else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is known after an event.

    Attributes:
        tripped: whether the evidence has ever been enough; it stays so until `reset`.
        evidence: of both together now; it trips at `needed`.
        speed: evidence that money goes faster than it did.
        poverty: evidence that it buys less progress; infinite where progress is not looked at.
        needed: evidence that is enough.
        at: when it tripped [s]; None if it has not.
        usd: spent until now [usd].
        usd_after: of that, since it tripped [usd].
    """

    tripped: bool
    evidence: float
    speed: float
    poverty: float
    needed: float
    at: float | None
    usd: float
    usd_after: float


@dataclass(slots=True)
class _Track:
    """Evidence on blocks of one scale."""

    scale: Scale
    block: _Block
    steps: int = 0
    speed: Floats = field(default_factory=lambda: np.empty(0))
    poverty: Floats = field(default_factory=lambda: np.empty(0))

    def add(self, spend: Spend, horizon: int | None) -> bool:
        """Whether a block ended."""
        scores = self.block.add(spend)
        if scores is None:
            return False
        self.steps += 1
        begun = part(self.steps, horizon)
        self.speed = _played(self.speed, begun, self.scale.speed, scores[0])
        if self.scale.poverty is not None:
            self.poverty = _played(self.poverty, begun, self.scale.poverty, scores[1])
        return True


def _played(played: Floats, begun: float, odds: Odds, score: float) -> Floats:
    return play(played, begun, returns(odds.exceeded(score), np.array(odds.chances)))


def _nothing(odds: Odds | None) -> Floats:
    return np.zeros((0 if odds is None else len(odds.thresholds), len(BETS)))


class Breaker:
    """Watches spending.

    Args:
        baseline: how money goes when all is well.

    Example:
        >>> calm = [Spend(at=float(n), usd=0.01) for n in range(400)]
        >>> breaker = Breaker(learn_baseline(calm))
        >>> burst = [Spend(at=500.0 + n / 10.0, usd=0.01) for n in range(300)]
        >>> verdicts = [breaker.observe(spend) for spend in burst]
        >>> next(round(v.usd, 2) for v in verdicts if v.tripped) < 1.5
        True
    """

    def __init__(self, baseline: Baseline) -> None:
        self.baseline = baseline
        self.reset()

    def reset(self) -> None:
        """Begin anew, after somebody has looked."""
        self._tracks = [
            _Track(
                scale=own,
                block=_Block(usd=own.usd),
                speed=_nothing(own.speed),
                poverty=_nothing(own.poverty),
            )
            for own in self.baseline.scales
        ]
        self._last, self._usd, self._after = -math.inf, 0.0, 0.0
        self._at: float | None = None
        self._evidence = self._weighed()

    def observe(self, spend: Spend) -> Verdict:
        """Take an event in; a clock that is set back stands still."""
        if spend.at < self._last:
            spend = Spend(at=self._last, usd=spend.usd, progress=spend.progress)
        self._last = spend.at
        self._usd += spend.usd
        if self._at is not None:
            self._after += spend.usd
        ended = [own.add(spend, self.baseline.horizon) for own in self._tracks]
        if any(ended):
            self._evidence = self._weighed()
            if self._at is None and min(self._evidence) >= self.baseline.needed:
                self._at = spend.at
        return self.verdict()

    def verdict(self) -> Verdict:
        """What is known now."""
        speed, poverty = self._evidence
        if self.baseline.usd_per_progress is None:
            poverty = math.inf
        return Verdict(
            tripped=self._at is not None,
            evidence=min(speed, poverty),
            speed=speed,
            poverty=poverty,
            needed=self.baseline.needed,
            at=self._at,
            usd=self._usd,
            usd_after=self._after,
        )

    def _weighed(self) -> tuple[float, float]:
        horizon, count = self.baseline.horizon, len(self._tracks)
        speed = max(float(capital(own.speed, own.steps, horizon)) for own in self._tracks)
        if self.baseline.usd_per_progress is None:
            return speed / count, math.inf
        poverty = max(float(capital(own.poverty, own.steps, horizon)) for own in self._tracks)
        return speed / count, poverty / count

    def to_json(self) -> str:
        """State and baseline as one line, to go on from after a restart."""
        tracks = [
            {
                "block": asdict(own.block),
                "steps": own.steps,
                "speed": own.speed.tolist(),
                "poverty": own.poverty.tolist(),
            }
            for own in self._tracks
        ]
        told = {
            "weft": "breaker",
            "baseline": json.loads(self.baseline.to_json()),
            "tracks": tracks,
            "last": None if math.isinf(self._last) else self._last,
            "usd": self._usd,
            "after": self._after,
            "at": self._at,
        }
        return json.dumps(told)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """A breaker that goes on where another was.

        Raises:
            FileError: the text is something else.
        """
        try:
            told = json.loads(text)
            own = cls(Baseline.from_json(json.dumps(told["baseline"])))
            for track, kept in zip(own._tracks, told["tracks"], strict=True):
                track.block, track.steps = _Block(**kept["block"]), int(kept["steps"])
                track.speed = np.array(kept["speed"]).reshape(track.speed.shape)
                track.poverty = np.array(kept["poverty"]).reshape(track.poverty.shape)
            own._last = -math.inf if told["last"] is None else float(told["last"])
            own._usd, own._after, own._at = told["usd"], told["after"], told["at"]
        except (ValueError, TypeError, KeyError) as error:
            raise FileError(
                need="a breaker's state as weft writes it", got=str(error), hint="begin anew"
            ) from error
        own._evidence = own._weighed()
        return own
