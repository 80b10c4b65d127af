"""MDD's mixing: the small model says how much, the large one's last residual whereto.

    the first steps           by the large model
    then, step by step        mixed: the small model computes the output with the prompt, of which
                              the magnitudes are taken; directions are those of the large model's
                              latents plus its residual, as it last was
                              or by the large model again, when the small one's directions have
                              turned by more than tau since it last computed
    the last steps            by the small model

How far directions have turned is 1 minus the cosine of the small model's outputs with the prompt
of consecutive steps that it computed, summed up. A step that finds too much is still mixed; the
next one is the large model's.

Source: MDD (2026), as described by others: tau of 0.005, first 20 % and last 5 % of the steps. What
the output without the prompt differs by is predicted, as in steps of mode cfg, which is our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from weft.core.errors import InputError
from weft.diffusion.plan import Mode, Model, Predictor, StepPlan
from weft.diffusion.policies.fixed import without_small
from weft.diffusion.policy import TURN, Decider, Moment, Policy, RunFacts

__all__ = ["Mixed"]

TAU, FIRST, LAST = 0.005, 0.2, 0.05
"""Source: see above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed(Policy):
    """Mix the small model's magnitudes and the large one's directions.

    Attributes:
        tau: how far directions may turn until the large model computes again.
        first: share of the steps, at the beginning, that are the large model's.
        last: share at the end that are the small one's.
        predictor: of the residual, and of what the output without the prompt differs by.

    Raises:
        InputError: a number is out of its range.
    """

    tau: float = TAU
    first: float = FIRST
    last: float = LAST
    predictor: Predictor = Predictor.REUSE

    def __post_init__(self) -> None:
        is_ordered = 0.0 <= self.first <= 1.0 - self.last <= 1.0
        if not is_ordered or self.tau < 0.0 or self.predictor is Predictor.FITTED:
            raise InputError(
                need="0 <= first <= 1 - last <= 1, tau of at least 0, and a predictor that works"
                " without calibration",
                got=str(self),
                hint="Mixed() has the published values",
            )

    @property
    def name(self) -> str:
        """With how far directions may turn."""
        return f"MDD with tau {self.tau:g}"

    @property
    def mixes(self) -> bool:
        """It does."""
        return True

    def begin(self, facts: RunFacts) -> Decider:
        """Start with the large model.

        Raises:
            InputError: there is no small one.
        """
        if not facts.has_small:
            raise without_small(facts.pipeline)
        return _Mixing(self, facts)


class _Mixing(Decider):
    def __init__(self, policy: Mixed, facts: RunFacts) -> None:
        self._policy = policy
        self._first = ceil(policy.first * facts.num_steps)
        self._last = facts.num_steps - round(policy.last * facts.num_steps)
        self._turned = 0.0

    def decide(self, moment: Moment) -> StepPlan:
        if moment.step >= self._last:
            return StepPlan(model=Model.SMALL)
        is_due = moment.step < self._first or self._turned > self._policy.tau
        if is_due or Mode.MIXED not in moment.possible:
            self._turned = 0.0
            return StepPlan()
        return StepPlan(mode=Mode.MIXED, predictor=self._policy.predictor, model=Model.SMALL)

    def observe(self, step: int, done: StepPlan, distances: Mapping[str, float]) -> None:
        self._turned += distances.get(TURN, 0.0)

    def needs(self, model: Model, step: int) -> bool:
        return model is Model.SMALL or step < self._last
