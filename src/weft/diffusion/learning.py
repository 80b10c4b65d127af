"""A speed without a profile: the first run is in full and is learnt from, all others follow a plan.

What a full run shows of a model is what calibration begins with; what it lacks are the gains, which
say what an error in a step does to the result, and the checks. So a speed can be met, a quality
cannot be promised.

With a small relative the first run shows, too, where SRDiffusion hands over to it. If that makes a
run fast enough, nothing else is left out; if not, caches do the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from weft.core.errors import InfeasibleError, InputError, WeftError
from weft.diffusion.costs import USUAL, Costs
from weft.diffusion.plan import DenoisePlan, Mode, Model, Predictor, StepPlan
from weft.diffusion.policies.fixed import Fixed
from weft.diffusion.policies.sketch import Sketch
from weft.diffusion.policy import Decider, Moment, Policy, RunFacts, inner_blocks
from weft.diffusion.record import StepRecord
from weft.diffusion.search import Search
from weft.diffusion.sketching import Sketcher
from weft.diffusion.surrogate import Surrogate
from weft.diffusion.watching import Watched

__all__ = ["Learning"]

_log = logging.getLogger("weft.diffusion")

FULL = StepPlan()
HALVINGS = 6
"""To find out how fast the large model's steps have to be beside a small one's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Learning(Policy):
    """Learn from the first run of each kind.

    Attributes:
        target_speedup: over all steps in full by the large model, from the second run on.
        sketch: where a small model takes over, if there is one.

    Raises:
        InputError: the speed is below 1.
    """

    target_speedup: float
    sketch: Sketch = field(default_factory=Sketch)
    _plans: dict[object, DenoisePlan | WeftError] = field(
        default_factory=dict[object, "DenoisePlan | WeftError"], init=False, repr=False
    )

    def __post_init__(self) -> None:
        if not self.target_speedup >= 1.0:
            raise InputError(
                need="a speed of at least 1",
                got=f"{self.target_speedup}",
                hint="target_speedup=2.0, for example",
            )

    @property
    def name(self) -> str:
        """With what was asked for."""
        return f"learnt for {self.target_speedup:g} times the speed"

    @property
    def judged(self) -> Predictor:
        """For the change from step to step."""
        return Predictor.REUSE

    def ranges(self, num_blocks: int) -> frozenset[tuple[int, int]]:
        """All blocks but the first and the last."""
        inner = inner_blocks(num_blocks)
        return frozenset(() if inner is None else {inner})

    def begin(self, facts: RunFacts) -> Decider:
        """Follow the plan that a run of this kind has led to; or learn from this one.

        Raises:
            InfeasibleError: no plan is as fast, as the first run has shown.
            InputError: nothing could be learnt from the first run.
        """
        plan = self._plans.get((facts.validity, facts.positions))
        if isinstance(plan, WeftError):
            raise plan
        if plan is not None:
            return Fixed(plan=plan).begin(facts)
        _log.info(
            "weft: this run of %s is in full, to learn from; the next ones are to be %g times as"
            " fast",
            facts.pipeline,
            self.target_speedup,
        )
        return _Learner(self, facts)

    def learn(
        self, facts: RunFacts, watched: Watched, steps: Sequence[StepRecord], switch: int
    ) -> None:
        """Make the plan for runs like one that was in full.

        Args:
            facts: of that run.
            watched: what it computed.
            steps: what it did.
            switch: first step that would have been the small model's.
        """
        (blocks,) = self.ranges(facts.num_blocks) or ((0, 0),)
        costs = Costs(
            full_s=median(step.seconds for step in steps),
            share={
                **USUAL,
                Mode.FULL: 1.0,
                Mode.BLOCK: 1.0 - (blocks[1] - blocks[0]) / facts.num_blocks,
            },
        )
        search = Search(Surrogate([watched.recording(facts.positions)]), costs)
        full = DenoisePlan(steps=(FULL,) * facts.num_steps)
        plan = _handed_over(search, costs, full, self.target_speedup, switch, facts.small_share)
        self._plans[facts.validity, facts.positions] = replace(plan, policy=self.name)

    def refuse(self, facts: RunFacts, error: WeftError) -> None:
        """Have runs like one that nothing could be learnt from end with an error."""
        self._plans[facts.validity, facts.positions] = error


def _handed_over(
    search: Search,
    costs: Costs,
    full: DenoisePlan,
    wanted: float,
    switch: int,
    small_share: float,
) -> DenoisePlan:
    """The plan that does least harm of those that are fast enough, with a small model's last steps.

    Args:
        search: for plans of the large model.
        costs: of its steps.
        full: all of them, computed.
        wanted: speed-up over all steps in full by the large model.
        switch: first step of the small model.
        small_share: of its steps over those of the large one.
    """
    if switch >= len(full.steps):
        return search.plan(search.for_speedup(wanted), None)

    def speed(plan: DenoisePlan) -> float:
        large, small = costs.seconds(plan.steps[:switch]), costs.seconds(plan.steps[switch:])
        return costs.seconds(full.steps) / (large + small_share * small)

    best, low, high = _with_small(full, switch), 1.0, wanted
    if speed(best) >= wanted:
        return replace(best, speedup=speed(best))
    best = _with_small(search.plan(search.for_speedup(high), None), switch)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        tried = _with_small(search.plan(search.for_speedup(middle), None), switch)
        if speed(tried) >= wanted:
            best, high = tried, middle
        else:
            low = middle
    if speed(best) < wanted * (1 - 1e-9):
        raise InfeasibleError(
            need=f"a plan of {wanted:.2f} times the speed",
            got=f"{speed(best):.2f} times at most, with the small model from step {switch} on",
            options=(f"target_speedup={int(100 * speed(best)) / 100}", "fewer steps"),
        )
    return replace(best, speedup=speed(best))


def _with_small(plan: DenoisePlan, switch: int) -> DenoisePlan:
    """A plan of the large model, with its last steps given to the small one.

    Weights are the large model's, and so are ranges of blocks. What the small one predicts from it
    has to compute first.
    """

    def given(step: int, own: StepPlan) -> StepPlan:
        if step == switch or own.mode in (Mode.FULL, Mode.BLOCK):
            return StepPlan(model=Model.SMALL)
        return StepPlan(mode=own.mode, predictor=Predictor.LINEAR, model=Model.SMALL)

    steps = tuple(own if n < switch else given(n, own) for n, own in enumerate(plan.steps))
    return replace(plan, steps=steps)


class _Learner(Decider):
    def __init__(self, policy: Learning, facts: RunFacts) -> None:
        self._policy, self._facts = policy, facts
        guidance = facts.validity.guidance if facts.has_guidance is not False else 1.0
        ranges = sorted(policy.ranges(facts.num_blocks))
        self.watcher = self._watched = Watched(Sketcher(), ranges, guidance)
        self._sketch = policy.sketch.begin(facts) if facts.has_small else None
        self._switch = facts.num_steps

    def decide(self, moment: Moment) -> StepPlan:
        if self._sketch is not None and self._sketch.decide(moment).model is Model.SMALL:
            self._switch = min(self._switch, moment.step)
        return FULL

    def observe(self, step: int, done: StepPlan, distances: Mapping[str, float]) -> None:
        if self._sketch is not None:
            self._sketch.observe(step, done, distances)

    def end(self, steps: Sequence[StepRecord]) -> None:
        if len(steps) != self._facts.num_steps:  # it broke off, or began in the midst
            return
        try:
            self._policy.learn(self._facts, self._watched, steps, self._switch)
        except WeftError as error:  # the run itself is done; the next one is told
            self._policy.refuse(self._facts, error)
