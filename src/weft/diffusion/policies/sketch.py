"""SRDiffusion: the large model sketches, the small one renders.

The first steps, of much noise, decide what there is and how it moves, and are the large model's.
When its output changes evenly from step to step, the small one takes over, for good:

    d_i = tanh(mean|o_i - o_{i-1}| / mean|o_{i-1}|)      change of the output
    switch before step i if 0 < s_{i-1} - s_i < delta    s: d, smoothed over steps

but not before a first step, and at the latest at a last one. Smoothing is our own: the unsmoothed
difference changes its sign from step to step, so that its first positive value decides.

Source: Cheng et al. 2025, arXiv 2505.19151; the rule, its delta of 0.01 and the bounds of 5 and 30
steps of 50 as two public re-implementations and the authors' command lines have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, tanh

from weft.core.errors import InputError
from weft.diffusion.plan import Model, Predictor, StepPlan
from weft.diffusion.policies.fixed import without_small
from weft.diffusion.policy import CHANGE, Decider, Moment, Policy, RunFacts

__all__ = ["Sketch"]

DELTA, EARLIEST, LATEST = 0.01, 0.1, 0.6
"""Source: see above; the bounds as shares of the steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch(Policy):
    """Give the steps of little noise to a small model.

    Attributes:
        then: who decides what of each step is computed; None for all of it.
        delta: least fall of the smoothed change above zero at which the large model goes on.
        earliest, latest: shares of the steps between which the small one takes over.
        smoothing: share of the past in the smoothed change.

    Raises:
        InputError: a number is out of its range.
    """

    then: Policy | None = None
    delta: float = DELTA
    earliest: float = EARLIEST
    latest: float = LATEST
    smoothing: float = 0.5

    def __post_init__(self) -> None:
        is_ordered = 0.0 <= self.earliest <= self.latest <= 1.0
        if not is_ordered or self.delta < 0.0 or not 0.0 <= self.smoothing < 1.0:
            raise InputError(
                need="0 <= earliest <= latest <= 1, delta of at least 0, 0 <= smoothing < 1",
                got=str(self),
                hint="Sketch() has the published values",
            )

    @property
    def name(self) -> str:
        """With who decides beside it."""
        return "SRDiffusion" if self.then is None else f"SRDiffusion, {self.then.name}"

    def ranges(self, num_blocks: int) -> frozenset[tuple[int, int]]:
        """The other policy's."""
        return frozenset() if self.then is None else self.then.ranges(num_blocks)

    @property
    def mixes(self) -> bool:
        """If the other policy does."""
        return self.then is not None and self.then.mixes

    @property
    def judged(self) -> Predictor:
        """The other policy's."""
        other = None if self.then is None else self.then.judged
        return other or Predictor.REUSE

    def begin(self, facts: RunFacts) -> Decider:
        """Start with the large model.

        Raises:
            InputError: there is no small one.
        """
        if not facts.has_small:
            raise without_small(facts.pipeline)
        return _Switching(self, facts, None if self.then is None else self.then.begin(facts))


class _Switching(Decider):
    def __init__(self, policy: Sketch, facts: RunFacts, then: Decider | None) -> None:
        self._policy, self._then = policy, then
        self._earliest = ceil(policy.earliest * facts.num_steps)
        self._latest = ceil(policy.latest * facts.num_steps)
        self._smooth: list[float] = []
        self._has_switched = False

    def decide(self, moment: Moment) -> StepPlan:
        self._has_switched = self._has_switched or self._is_time(moment.step)
        plan = StepPlan() if self._then is None else self._then.decide(moment)
        return replace(plan, model=Model.SMALL) if self._has_switched else plan

    def needs(self, model: Model, step: int) -> bool:
        is_before = not self._has_switched and step < self._latest
        return model is Model.SMALL or is_before

    def _is_time(self, step: int) -> bool:
        if step >= self._latest:
            return True
        if step < max(self._earliest, 1) or len(self._smooth) < 2:
            return False
        return 0.0 < self._smooth[-2] - self._smooth[-1] < self._policy.delta

    def observe(self, step: int, done: StepPlan, distances: Mapping[str, float]) -> None:
        if self._then is not None:
            self._then.observe(step, done, distances)
        change = distances.get(CHANGE)
        if change is not None and done.model is Model.LARGE:
            past, share = self._smooth[-1:], self._policy.smoothing
            own = tanh(change)
            self._smooth.append(share * past[0] + (1 - share) * own if past else own)
