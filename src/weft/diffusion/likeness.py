"""How like a plan's result is to the full run's: what was run corrects what is predicted.

    likeness of a plan = predicted + what was missed of checks, between their speeds
    surely             = the same, less a margin
    margin^2           = (t(0.95, n - 1) sqrt(2) s / sqrt(n))^2 + (t(0.95, m) r)^2

for n videos with the standard deviation s, whose mean is worse with as many other videos, and for
plans that were not run: r is what the m checks between two others differ by, root mean square, from
what these two say. A likeness is below the margin in one of twenty cases.

Checks are told apart by the style of the search that made them, since a style that does best at one
speed may do worst at the next, and by speed, since what is missed grows with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from weft.core.quantiles import student_t
from weft.diffusion.search import STYLES, Style

__all__ = ["Check", "Likeness"]

LEVEL = 0.9
"""Of an interval to both sides: of twenty cases, one lies below."""
GRID = 200
"""Speeds that are looked at for the fastest of a style. Chosen: finer than steps that are saved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A plan that was run: what was predicted, and what came of it.

    Attributes:
        speedup, psnr_db: predicted.
        got_speedup, got_psnr_db: measured, the latter as the mean over videos.
        doubt_db: standard error of this mean.
        videos: of which it is the mean.
        style: of the search that made the plan.
    """

    speedup: float
    psnr_db: float
    got_speedup: float
    got_psnr_db: float
    doubt_db: float = 0.0
    videos: int = 1
    style: Style = STYLES[0]

    @property
    def margin_db(self) -> float:
        """By which the mean of as many other videos may be worse [dB]."""
        if self.videos < 2:
            return 0.0  # one video says nothing of others
        return math.sqrt(2.0) * student_t(LEVEL, self.videos - 1) * self.doubt_db


class Likeness:
    """Likeness of plans, by speed and style.

    Args:
        checks: that were run; with none, nothing is corrected.
    """

    def __init__(self, checks: Sequence[Check]) -> None:
        ordered = sorted(checks, key=lambda check: check.speedup)
        self._of = {s: [c for c in ordered if c.style == s] for s in {c.style for c in ordered}}
        self._between_db = {style: _between_db(own) for style, own in self._of.items()}

    def corrected_db(self, plain_db: float, speedup: float, style: Style) -> float:
        """What is predicted of a plan, corrected [dB]."""
        return plain_db + self._at(speedup, style, lambda c: c.got_psnr_db - c.psnr_db)

    def surely_db(self, plain_db: float, speedup: float, style: Style) -> float:
        """The same less a margin: other prompts and other plans may do worse [dB]."""
        margin_db = self._margin_db(speedup, style)
        return self.corrected_db(plain_db, speedup, style) - margin_db

    def fastest(self, style: Style) -> float:
        """Speed of the fastest check: nothing is known of what is faster."""
        own = self._of.get(style)
        return own[-1].speedup if own else math.inf

    def style_for_speed(self, speedup: float) -> Style:
        """The style that did best around a speed, of those that were checked as far."""
        known = [s for s in self._of if self.fastest(s) >= speedup] or list(self._of)
        return max(known, key=lambda s: self._at(speedup, s, _got), default=STYLES[0])

    def style_for_psnr(self, psnr_db: float) -> Style:
        """The style that is surely as good at the highest speed."""

        def reached(style: Style) -> tuple[float, float]:
            own = self._of[style]
            speeds = np.linspace(own[0].speedup, own[-1].speedup, GRID)
            sure = [
                self._at(float(speed), style, _got) - self._margin_db(float(speed), style)
                for speed in speeds
            ]
            good = [float(s) for s, db in zip(speeds, sure, strict=True) if db >= psnr_db]
            return max(good, default=0.0), sure[0]

        return max(self._of, key=reached, default=STYLES[0])

    def leading(self) -> tuple[Check, ...]:
        """Checks that no other one surpasses in both, from slow to fast."""
        every = [check for own in self._of.values() for check in own]
        found: list[Check] = []
        for check in sorted(every, key=lambda c: (c.speedup, c.got_psnr_db), reverse=True):
            if not found or check.got_psnr_db > found[-1].got_psnr_db:
                found.append(check)
        return tuple(reversed(found))

    def _margin_db(self, speedup: float, style: Style) -> float:
        """By which likeness may be worse than what is predicted, corrected [dB]."""
        of_videos = self._at(speedup, style, lambda c: c.margin_db)
        return math.hypot(of_videos, self._between_db.get(style, 0.0))

    def _at(self, speedup: float, style: Style, told: Callable[[Check], float]) -> float:
        """A figure of a style's checks, between the two nearest in speed."""
        own = self._of.get(style) or [c for every in self._of.values() for c in every]
        if not own:
            return 0.0
        return float(np.interp(speedup, [c.speedup for c in own], [told(c) for c in own]))


def _got(check: Check) -> float:
    return check.got_psnr_db


def _between_db(checks: Sequence[Check]) -> float:
    """By which plans between checks may miss what these say, in nineteen of twenty cases [dB]."""
    missed = [c.got_psnr_db - c.psnr_db for c in checks]
    speeds = [c.speedup for c in checks]
    off = [
        missed[i]
        - float(np.interp(speeds[i], speeds[i - 1 : i + 2 : 2], missed[i - 1 : i + 2 : 2]))
        for i in range(1, len(checks) - 1)
    ]
    if not off:
        return 0.0
    return student_t(LEVEL, len(off)) * math.sqrt(float(np.mean(np.square(off))))
