"""MixCache: of step, guidance and blocks, leave out what harms least, and only when it is time.

After a warm-up, one step in every k is computed in full. In the others the granularity is chosen
for which

    distance x impact x penalty

is least: the distance of its prediction from what was last computed, times what an error of that
size does to the result (from calibration), times a penalty if it was the last one chosen, since
errors of one kind add up. The interval k itself follows the distance that a full step finds: above
one bound it shrinks, below another it grows.

Source: Wei et al. 2025, arXiv 2508.12691 (abstract); decision rule, penalty of 5 and bounds on the
interval as a survey quotes them. The paper's distances, bounds and warm-up were not to be had:
those here are our own, and are calibrated. Beyond the paper, each granularity is extrapolated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil

from weft.core.errors import InputError
from weft.diffusion.plan import Mode, Predictor, StepPlan
from weft.diffusion.policies.fixed import without_guidance
from weft.diffusion.policy import Decider, Moment, Policy, RunFacts, inner_blocks

__all__ = ["MixCache"]

PENALTY = 5.0
"""Source: survey of MixCache, see above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixCache(Policy):
    """Leave out, at each step, what harms least.

    Attributes:
        modes: granularities to choose from.
        predictor: of all of them.
        blocks: range that block steps leave out; None for all but the first and the last.
        impact: of each mode, what an error does to the result, over that of another.
        warm_up: share of the steps, at the beginning, that are computed in full.
        tail: steps at the end that are.
        interval: steps from one full step to the next, at first.
        longest: most of them.
        bounds: distances at a full step below which the interval grows, and above which it
            shrinks.
        penalty: factor on the mode that was used last.

    Raises:
        InputError: a number is out of its range.
    """

    modes: frozenset[Mode] = frozenset({Mode.STEP, Mode.CFG, Mode.BLOCK})
    predictor: Predictor = Predictor.LINEAR
    blocks: tuple[int, int] | None = None
    impact: Mapping[Mode, float] = field(
        default_factory=lambda: {Mode.STEP: 1.0, Mode.CFG: 0.3, Mode.BLOCK: 1.0}
    )
    warm_up: float = 0.15
    tail: int = 1
    interval: int = 2
    longest: int = 4
    bounds: tuple[float, float] = (0.02, 0.1)
    penalty: float = PENALTY

    def __post_init__(self) -> None:
        if (
            not self.modes
            or Mode.FULL in self.modes
            or not 0.0 <= self.warm_up < 1.0
            or self.tail < 1
            or not 1 <= self.interval <= self.longest
            or not 0.0 <= self.bounds[0] <= self.bounds[1]
            or self.penalty < 1.0
        ):
            raise InputError(
                need="modes other than full, a warm-up below 1, at least one step of tail, 1 <="
                " interval <= longest, bounds in order, and a penalty of at least 1",
                got=str(self),
                hint="MixCache() has values that work for most models",
            )
        if self.predictor is Predictor.FITTED:
            raise InputError(
                need="a predictor that works without calibration",
                got="fitted",
                hint="weft.diffusion.calibrate makes a profile, and its plans have weights",
            )

    @property
    def name(self) -> str:
        """With what it chooses from."""
        return f"MixCache over {', '.join(sorted(mode.value for mode in self.modes))}"

    def ranges(self, num_blocks: int) -> frozenset[tuple[int, int]]:
        """The one, if there are blocks enough."""
        found = self.blocks or inner_blocks(num_blocks)
        return frozenset({found} if found is not None and Mode.BLOCK in self.modes else ())

    @property
    def judged(self) -> Predictor:
        """The one that is used."""
        return self.predictor

    def begin(self, facts: RunFacts) -> Decider:
        """Start with the shortest interval.

        Raises:
            InputError: only guidance may be predicted, and there is none.
        """
        if self.modes == {Mode.CFG} and facts.has_guidance is False:
            raise without_guidance(facts.pipeline)
        return _Choosing(self, facts)


class _Choosing(Decider):
    def __init__(self, policy: MixCache, facts: RunFacts) -> None:
        self._policy = policy
        self._first = ceil(policy.warm_up * facts.num_steps)
        self._last = facts.num_steps - policy.tail
        self._interval = policy.interval
        self._since_full = 0
        self._distance: dict[str, float] = {}
        self._used: Mode | None = None
        (self._blocks,) = policy.ranges(facts.num_blocks) or (None,)

    def decide(self, moment: Moment) -> StepPlan:
        policy = self._policy
        possible = policy.modes & moment.possible
        known = [mode for mode in possible if mode.value in self._distance]
        is_inside = self._first <= moment.step < self._last
        if not is_inside or not known or self._since_full + 1 >= self._interval:
            self._since_full = 0
            return StepPlan()
        self._since_full += 1
        chosen = min(known, key=lambda mode: (self._price(mode), mode.value))
        self._used = chosen
        return StepPlan(
            mode=chosen,
            predictor=policy.predictor,
            blocks=self._blocks if chosen is Mode.BLOCK else None,
        )

    def _price(self, mode: Mode) -> float:
        policy = self._policy
        again = policy.penalty if mode is self._used else 1.0
        return self._distance[mode.value] * policy.impact.get(mode, 1.0) * again

    def observe(self, step: int, done: StepPlan, distances: Mapping[str, float]) -> None:
        self._distance |= distances
        if done.mode is not Mode.FULL or self._used is None:
            return
        found = distances.get(self._used.value)
        low, high = self._policy.bounds
        if found is not None and found > high:
            self._interval = max(1, self._interval - 1)
        elif found is not None and found < low:
            self._interval = min(self._policy.longest, self._interval + 1)
