"""TRACK's placement: the small model does the steps in which it agrees best with the large one.

These need not be the last, nor follow each other. Where the models take turns, the first step of
each is computed in full, so that nothing is predicted across another model's steps from values
that are long past.

Source: TRACK (2026), as quoted by others: the K steps of least mean `|small - large| / |large|`
along the large model's runs. Full steps at turns are our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from weft.core.errors import InputError
from weft.diffusion.pair import Disagreement
from weft.diffusion.plan import Model, Predictor, StepPlan
from weft.diffusion.policies.fixed import without_small
from weft.diffusion.policies.sketch import Sketch
from weft.diffusion.policy import Decider, Moment, Policy, RunFacts

__all__ = ["Placed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed(Policy):
    """Give the steps in which the two models agree best to the small one.

    Attributes:
        disagreement: of the pair.
        steps: how many the small model does.
        share: which share of the steps it does instead.
        then: who decides what of each step is computed; None for all of it.

    Raises:
        InputError: not one of `steps` and `share` is given, it is out of its range, or `then`
            chooses models itself.
    """

    disagreement: Disagreement
    steps: int | None = None
    share: float | None = None
    then: Policy | None = None

    def __post_init__(self) -> None:
        is_one = (self.steps is None) != (self.share is None)
        is_sound = (self.steps or 0) >= 0 and 0.0 <= (self.share or 0.0) <= 1.0
        if not is_one or not is_sound:
            raise InputError(
                need="either steps, of at least 0, or share, from 0 to 1",
                got=f"steps={self.steps}, share={self.share}",
                hint="share=0.5 gives the small model half of the steps",
            )
        if self.then is not None and (self.then.mixes or isinstance(self.then, Sketch)):
            raise InputError(
                need="a policy for caches beside the placement",
                got=self.then.name,
                hint="mixed steps choose between the models on their own",
            )

    @property
    def name(self) -> str:
        """With who decides beside it."""
        return "placed" if self.then is None else f"placed, {self.then.name}"

    def ranges(self, num_blocks: int) -> frozenset[tuple[int, int]]:
        """The other policy's."""
        return frozenset() if self.then is None else self.then.ranges(num_blocks)

    @property
    def judged(self) -> Predictor | None:
        """The other policy's."""
        return None if self.then is None else self.then.judged

    def begin(self, facts: RunFacts) -> Decider:
        """Place the run's steps.

        Raises:
            InputError: there is no small model, or there are fewer steps than it shall do.
            MismatchError: the disagreement is of another model, scheduler, guidance or size.
        """
        if not facts.has_small:
            raise without_small(facts.pipeline)
        self.disagreement.holds_for.require(facts.validity)
        count = round((self.share or 0.0) * facts.num_steps) if self.steps is None else self.steps
        if count > facts.num_steps:
            raise InputError(
                need=f"at most {facts.num_steps} steps for the small model, as many as the run has",
                got=f"steps={count}",
                hint="share=0.5 is for runs of any number of steps",
            )
        chosen = self.disagreement.least(facts.positions, count)
        return _Placing(chosen, facts, None if self.then is None else self.then.begin(facts))


class _Placing(Decider):
    def __init__(self, chosen: frozenset[int], facts: RunFacts, then: Decider | None) -> None:
        self._then = then
        self._models = [
            Model.SMALL if step in chosen else Model.LARGE for step in range(facts.num_steps)
        ]

    def decide(self, moment: Moment) -> StepPlan:
        step, models = moment.step, self._models
        plan = StepPlan() if self._then is None else self._then.decide(moment)
        is_turn = step > 0 and models[step] is not models[step - 1]
        return StepPlan(model=models[step]) if is_turn else replace(plan, model=models[step])

    def observe(self, step: int, done: StepPlan, distances: Mapping[str, float]) -> None:
        if self._then is not None:
            self._then.observe(step, done, distances)

    def needs(self, model: Model, step: int) -> bool:
        return model in self._models[step:]
