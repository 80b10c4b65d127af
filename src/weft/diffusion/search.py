"""The plan that does least harm for a speed, or the fastest that does no more harm than is allowed.

From a plan that computes everything, the shortcut that saves most for the harm it does is taken,
again and again; harms are those of the whole plan, so that what cancels out is seen. That gives
a plan for every speed. The best ones for the speed that is asked for are then improved by
exchanges: one step is computed that was not, another one no more.

Knows the surrogate and what steps take; does not know pipelines.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from weft.core.errors import InfeasibleError
from weft.diffusion.costs import Costs
from weft.diffusion.plan import DenoisePlan, Mode, Predictor, StepPlan
from weft.diffusion.surrogate import Surrogate

__all__ = ["EFFORT", "STYLES", "Found", "Search", "Style"]

FULL = StepPlan()
STARTS = 3
"""Plans that exchanges begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How careful a search is.

    Attributes:
        doubt: of recorded errors, see `Surrogate`.
        warm_up: first steps that are computed in full.
    """

    doubt: float = 1.0
    warm_up: int = 2


EFFORT = 12_000
"""Plans that exchanges look at."""
STYLES = (Style(), Style(doubt=0.3), Style(warm_up=5))
"""Which one finds the best plan differs from model to model, and from speed to speed. Measured: on
a small Wan that draws moving shapes, by 3 to 6 dB either way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A plan and what it is predicted to do.

    Attributes:
        steps: the plan.
        speedup: over all steps in full.
        mean_square: error of the results' elements.
    """

    steps: tuple[StepPlan, ...]
    speedup: float
    mean_square: float


class Search:
    """Plans for a model.

    Args:
        surrogate: what plans do to the result.
        costs: what they take.
        warm_up: first steps that are computed in full.
        tail: last steps that are.
        modes: of shortcuts.
        effort: most plans that exchanges look at; a number and not a time, so that the same plan
            is found on every machine.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        costs: Costs,
        *,
        warm_up: int = 2,
        tail: int = 0,
        modes: Sequence[Mode] = (Mode.STEP, Mode.CFG, Mode.BLOCK),
        effort: int = EFFORT,
    ) -> None:
        self._surrogate, self._effort = surrogate, effort
        self._free = range(max(warm_up, 1), surrogate.num_steps - tail)
        self._options = [FULL, *self._shortcuts(modes)]
        # By identity, which is quicker; the options last as long as the search.
        self._taken = {id(option): costs.seconds((option,)) for option in self._options}
        self._whole_s = costs.whole_s(surrogate.num_steps)
        self._frontier: list[Found] = []

    def _shortcuts(self, modes: Sequence[Mode]) -> list[StepPlan]:
        found: list[StepPlan] = []
        for predictor in Predictor:
            if Mode.STEP in modes:
                found.append(StepPlan(mode=Mode.STEP, predictor=predictor))
            if Mode.CFG in modes and self._surrogate.has_guidance:
                found.append(StepPlan(mode=Mode.CFG, predictor=predictor))
            if Mode.BLOCK in modes:
                found += [
                    StepPlan(mode=Mode.BLOCK, predictor=predictor, blocks=blocks)
                    for blocks in self._surrogate.ranges
                ]
        return found

    def plan(self, found: Found, psnr_db: float | None) -> DenoisePlan:
        """A plan that was found, as one to run."""
        return DenoisePlan(
            steps=self._surrogate.fitted(found.steps),
            policy="calibrated",
            speedup=found.speedup,
            psnr_db=psnr_db,
        )

    def frontier(self) -> list[Found]:
        """A plan for every speed, from none of it to all."""
        if not self._frontier:
            steps = (FULL,) * self._surrogate.num_steps
            own = self._found(steps, self._speedup(steps))
            self._frontier = [own]
            while (own := self._step_on(own)) is not None:
                self._frontier.append(own)
        return self._frontier

    def _step_on(self, own: Found) -> Found | None:
        """The plan with one more shortcut that saves most for its harm."""
        best: Found | None = None
        least = math.inf
        now_s = self._seconds(own.steps)
        for step in self._free:
            for option in self._options:
                tried = self._with(own.steps, step, option)
                seconds = self._seconds(tried)
                saved_s = now_s - seconds
                if saved_s <= 1e-9 * now_s:
                    continue
                found = self._found(tried, self._whole_s / seconds)
                harm = (math.sqrt(found.mean_square) - math.sqrt(own.mean_square)) / saved_s
                if harm < least and math.isfinite(found.mean_square):
                    best, least = found, harm
        return best

    def for_speedup(self, wanted: float) -> Found:
        """The plan of at least a speed that does least harm.

        Raises:
            InfeasibleError: no plan is that fast.
        """
        fast = [found for found in self.frontier() if found.speedup >= wanted * (1 - 1e-9)]
        if not fast:
            most = max(found.speedup for found in self.frontier())
            raise InfeasibleError(
                need=f"a plan of {wanted:.2f} times the speed",
                got=f"{most:.2f} times at most, with {self._surrogate.num_steps - len(self._free)}"
                " steps that are always computed",
                options=(
                    f"target_speedup={int(100 * most) / 100}",
                    "fewer steps",
                    "a small model to sketch for",
                ),
            )
        starts = sorted([*fast, *self._regular(wanted)], key=lambda found: found.mean_square)
        tried = [self._exchanged(found, wanted) for found in starts[:STARTS]]
        return min(tried, key=lambda found: found.mean_square)

    def _regular(self, wanted: float) -> list[Found]:
        """Plans that compute every k-th step, of so much speed."""
        found: list[Found] = []
        for every in range(2, len(self._free) + 1):
            for option in self._options[1:]:
                steps = tuple(
                    option if n in self._free and (n - self._free.start) % every else FULL
                    for n in range(self._surrogate.num_steps)
                )
                speedup = self._speedup(steps)
                if speedup >= wanted * (1 - 1e-9):
                    found.append(self._found(steps, speedup))
        return found

    def fastest(self, is_good: Callable[[Found], bool], most: float = math.inf) -> Found:
        """The fastest plan that is good, of those that are no faster than `most`.

        The full plan counts as good.
        """
        frontier = [found for found in self.frontier() if found.speedup <= most]
        fastest = max(
            [frontier[0], *(found for found in frontier[1:] if is_good(found))],
            key=lambda found: found.speedup,
        )
        faster = [found.speedup for found in frontier if found.speedup > fastest.speedup]
        low, high = 0, len(faster)
        while low < high:  # harm grows with the speed
            middle = (low + high) // 2
            tried = self.for_speedup(faster[middle])
            if is_good(tried):
                fastest, low = tried, middle + 1
            else:
                high = middle
        return fastest

    def _exchanged(self, own: Found, wanted: float) -> Found:
        """Better by exchanges: first of one shortcut for another, then of any two for any two."""
        chance, left = random.Random(0), self._effort // STARTS
        pairs = [(a, b) for a in self._free for b in self._free]
        for firsts in ([FULL], self._options):
            improved = True
            while improved and left > 0:
                improved = False
                chance.shuffle(pairs)
                for a, b in pairs:
                    left -= len(firsts) * len(self._options)
                    if left < 0:
                        break
                    found = self._best_of_pair(own, a, b, firsts, wanted)
                    if found.mean_square < own.mean_square * (1 - 1e-6):
                        own, improved = found, True
        return own

    def _best_of_pair(
        self, own: Found, a: int, b: int, firsts: Sequence[StepPlan], wanted: float
    ) -> Found:
        """The best plan with one of `firsts` in step a, and anything in step b."""
        best = own
        for first in firsts:
            for option in self._options:
                tried = self._with(self._with(own.steps, a, first), b, option)
                speedup = self._speedup(tried)
                if speedup >= wanted * (1 - 1e-9):
                    found = self._found(tried, speedup)
                    if found.mean_square < best.mean_square:
                        best = found
        return best

    def _found(self, steps: tuple[StepPlan, ...], speedup: float) -> Found:
        return Found(
            steps=steps,
            speedup=speedup,
            mean_square=self._surrogate.mean_square(steps),
        )

    def _seconds(self, steps: Sequence[StepPlan]) -> float:
        taken = self._taken
        return sum([taken[id(step)] for step in steps])

    def _speedup(self, steps: Sequence[StepPlan]) -> float:
        return self._whole_s / self._seconds(steps)

    @staticmethod
    def _with(steps: tuple[StepPlan, ...], step: int, option: StepPlan) -> tuple[StepPlan, ...]:
        return (*steps[:step], option, *steps[step + 1 :])
