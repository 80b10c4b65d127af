"""A speed without a profile: the first run is in full and is learnt from, all others follow a plan.

What a full run shows of a model is what calibration begins with; what it lacks are the gains, which
say what an error in a step does to the result, and the checks. So a speed can be met, a quality
cannot be promised.

With a small relative the first run shows, too, how far that is from the large model at each step.
Both what is left out and what is handed over do harm; of the plans that are fast enough, the one
with the least is taken: caches first where the two models differ, an early switch where they agree.
Where the small one cannot be asked, because it is elsewhere until it is needed, SRDiffusion's rule
says where it takes over.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from statistics import median

import numpy as np
from numpy.typing import NDArray

from weft.core.errors import InfeasibleError, InputError, WeftError
from weft.diffusion.costs import USUAL, Costs
from weft.diffusion.plan import DenoisePlan, Mode, Model, Predictor, StepPlan
from weft.diffusion.policies.fixed import Fixed
from weft.diffusion.policies.sketch import Sketch
from weft.diffusion.policy import Decider, Moment, Policy, RunFacts, inner_blocks
from weft.diffusion.record import StepRecord
from weft.diffusion.search import Found, Search
from weft.diffusion.sketching import Sketcher
from weft.diffusion.surrogate import Surrogate
from weft.diffusion.watching import Watched

__all__ = ["Learning"]

_log = logging.getLogger("weft.diffusion")

FULL = StepPlan()


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
        if (facts.validity, facts.positions) in self._plans:
            return  # from another row, or another run at the same time
        (blocks,) = self.ranges(facts.num_blocks) or ((0, 0),)
        costs = Costs(
            full_s=median(step.seconds for step in steps),
            share={
                **USUAL,
                Mode.FULL: 1.0,
                Mode.BLOCK: 1.0 - (blocks[1] - blocks[0]) / facts.num_blocks,
            },
        )
        surrogate = Surrogate([watched.recording(facts.positions)])
        hand_over = _HandOver(surrogate, costs, self.target_speedup, facts.small_share)
        if not facts.has_small:
            plan = hand_over.without()
        else:
            small = watched.small(facts.num_steps)
            earliest = max(ceil(self.sketch.earliest * facts.num_steps), 1)
            every = range(min(earliest, facts.num_steps), facts.num_steps + 1)
            switches = (switch,) if small is None else every
            plan = hand_over.best(switches, small)
        self._plans[facts.validity, facts.positions] = replace(plan, policy=self.name)

    def refuse(self, facts: RunFacts, error: WeftError) -> None:
        """Have runs like one that nothing could be learnt from end with an error."""
        self._plans[facts.validity, facts.positions] = error


class _HandOver:
    """Plans whose last steps may be a small model's.

    Args:
        surrogate: what is left out, and handed over, does to the result.
        costs: of the large model's steps.
        wanted: speed-up over all steps in full by the large model.
        small_share: of the small one's steps over those of the large one.
    """

    def __init__(
        self, surrogate: Surrogate, costs: Costs, wanted: float, small_share: float
    ) -> None:
        self._surrogate, self._costs, self._wanted = surrogate, costs, wanted
        self._small_share = small_share
        self._search = Search(surrogate, costs)
        self._full_s = costs.whole_s(surrogate.num_steps)

    def without(self) -> DenoisePlan:
        """The best plan of the large model alone.

        Raises:
            InfeasibleError: none is fast enough.
        """
        return self._search.plan(self._search.for_speedup(self._wanted), None)

    def best(self, switches: Sequence[int], small: NDArray[np.float64] | None) -> DenoisePlan:
        """The plan that does least harm.

        Args:
            switches: first steps of the small model that come into question; the number of steps
                for none.
            small: its guided outputs [steps, numbers]; None if they are unknown, and the switch is
                to be taken as it is.

        Raises:
            InfeasibleError: no plan is fast enough.
        """
        found: list[tuple[float, int, float]] = []
        for switch in switches:
            cached = self._cached(switch)
            if cached is not None:
                harm = 0.0 if small is None else self._surrogate.handed_over(small, switch)
                found.append((harm + cached.mean_square, switch, cached.speedup))
        if not found:
            raise self._too_fast(switches)
        _, switch, cached_speedup = min(found)
        if switch == self._surrogate.num_steps:
            return self.without()
        return self._improved(switch, cached_speedup)

    def _cached(self, switch: int) -> Found | None:
        """The slowest plan of the large model that is fast enough with a switch, if one is."""
        plans = self._search.frontier()  # from slow to fast
        at = bisect_left(plans, self._wanted, key=lambda found: self._speed(found, switch))
        return plans[at] if at < len(plans) else None

    def _improved(self, switch: int, cached_speedup: float) -> DenoisePlan:
        """The best plan of about such a speed, if it is as fast with the small model."""
        plans = self._search.frontier()
        plain = next(f for f in plans if f.speedup >= cached_speedup * (1 - 1e-9))
        better = self._search.for_speedup(cached_speedup)
        is_faster = self._speed(better, switch) >= self._wanted
        plan = _with_small(self._search.plan(better if is_faster else plain, None), switch)
        return replace(plan, speedup=self._speed(better if is_faster else plain, switch))

    def _speed(self, found: Found, switch: int) -> float:
        """Of a plan whose last steps are given to the small model."""
        steps = _with_small(DenoisePlan(steps=found.steps), switch).steps
        large, small = self._costs.seconds(steps[:switch]), self._costs.seconds(steps[switch:])
        return self._full_s / (large + self._small_share * small)

    def _too_fast(self, switches: Sequence[int]) -> InfeasibleError:
        fastest = self._search.frontier()[-1]
        most, switch = max((self._speed(fastest, s), s) for s in switches)
        return InfeasibleError(
            need=f"a plan of {self._wanted:.2f} times the speed",
            got=f"{most:.2f} times at most, with the small model from step {switch} on",
            options=(f"target_speedup={int(100 * most) / 100}", "fewer steps"),
        )


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
        self.asks_small = facts.has_small
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
