"""Dollars per passed task, by arm, and what the next pass costs along the frontier.

    cost of a pass = mean cost of an attempt / share that passes

over the tasks at hand: a ratio of totals, in which a task that never passes counts with its cost.
(The paper takes the ratio task by task, and then the mean, which is infinite with one such task.)
The frontier are the arms that no mix of others betters; the step from one to the next is what one
more pass costs. Attempts at one task under several arms are a pair, and intervals use that.

Source: Erol et al., arXiv 2504.13359 (cost of a pass); incremental ratios and their frontier as in
health economics: Stinnett and Mullahy, Medical Decision Making 1998.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weft.core.errors import InputError
from weft.tokens.micro.estimate import Estimate, Floats, Interval, cluster_sums
from weft.tokens.micro.trials import Trials

FREE = 1e-300
"""Dollars of a step that costs nothing, so that it comes first [usd]."""

__all__ = ["ArmCost", "FrontierStep", "cost_of_pass", "pass_frontier"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmCost:
    """One arm of one model.

    Attributes:
        arm, model: which.
        attempts: made under it.
        passes: share that passed.
        usd: mean cost of an attempt [usd].
        usd_per_pass: expected dollars per passed task; infinite where none passed, with the lower
            end that so many failures leave [usd].
    """

    arm: str
    model: str
    attempts: int
    passes: Interval
    usd: Interval
    usd_per_pass: Interval

    @property
    def name(self) -> str:
        """Model and arm."""
        return " ".join(part for part in (self.model, self.arm) if part) or "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierStep:
    """From one arm of the frontier to the next.

    Attributes:
        before, after: names of the arms; nothing at all is the first.
        passes: share more that passes.
        usd_per_pass: what each of these costs; without upper end where there may be none [usd].
    """

    before: str
    after: str
    passes: Interval
    usd_per_pass: Interval


def cost_of_pass(trials: Trials, level: float = 0.95) -> tuple[ArmCost, ...]:
    """Every arm, the cheapest pass first.

    Raises:
        InputError: outcomes are not 0 and 1, or costs are not known.
    """
    estimate, names, counts = _means(trials)
    found: list[ArmCost] = []
    for place, (model, arm) in enumerate(names):
        rate, cost = 2 * place, 2 * place + 1
        passes, usd = estimate.interval(rate, level), estimate.interval(cost, level)
        if passes.value == 0.0:
            most = 1.0 - (1.0 - level) ** (1.0 / counts[place])
            per = Interval(value=math.inf, low=usd.value / most, high=math.inf, level=level)
            passes = Interval(value=0.0, low=0.0, high=most, level=level)
        else:

            def ratio(values: Floats, rate: int = rate, cost: int = cost) -> Floats:
                return np.log(values[[cost]] / values[[rate]])

            per = estimate.through(ratio).interval(0, level).mapped(math.exp)
        found.append(
            ArmCost(
                arm=arm,
                model=model,
                attempts=counts[place],
                passes=passes,
                usd=usd,
                usd_per_pass=per,
            )
        )
    return tuple(sorted(found, key=lambda own: own.usd_per_pass.value))


def pass_frontier(trials: Trials, level: float = 0.95) -> tuple[FrontierStep, ...]:
    """From doing nothing through the arms that no mix of others betters.

    Raises:
        InputError: outcomes are not 0 and 1, or costs are not known.
    """
    estimate, names, _ = _means(trials)
    labels = [" ".join(part for part in pair if part) or "all" for pair in names]
    points = [
        (float(estimate.values[2 * a + 1]), float(estimate.values[2 * a]))
        for a in range(len(names))
    ]
    steps: list[FrontierStep] = []
    before: int | None = None
    for after in _hull(points):

        def gained(values: Floats, after: int = after, before: int | None = before) -> Floats:
            gain, paid = values[2 * after], values[2 * after + 1]
            if before is not None:
                gain, paid = gain - values[2 * before], paid - values[2 * before + 1]
            return np.array([gain, gain / paid])

        found = estimate.through(gained)
        steps.append(
            FrontierStep(
                before="nothing" if before is None else labels[before],
                after=labels[after],
                passes=found.interval(0, level),
                usd_per_pass=found.interval(1, level).inverted(),
            )
        )
        before = after
    return tuple(steps)


def _hull(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points on the upper hull from the origin, by cost, while it rises."""
    chain: list[int] = []
    at, reached = 0.0, 0.0
    rest = set(range(len(points)))
    while True:
        better = [place for place in rest if points[place][1] > reached]
        if not better:
            return chain
        slopes = [(points[p][1] - reached) / max(points[p][0] - at, FREE) for p in better]
        best = better[slopes.index(max(slopes))]
        chain.append(best)
        rest.discard(best)
        at, reached = points[best]


def _means(trials: Trials) -> tuple[Estimate, list[tuple[str, str]], list[int]]:
    """Share that passes and mean cost, arm by arm [2 * cells], and the arms' names and sizes."""
    if trials.usd is None or not trials.is_binary:
        raise InputError(
            need="attempts that passed or did not, and what each cost",
            got="no costs" if trials.usd is None else "outcomes other than 0 and 1",
            hint="price the tokens of each attempt, and give `usd`",
        )
    usd = np.asarray(trials.usd, dtype=np.float64)
    cells, arms = trials.which_cell, [*trials.arm] or [""] * len(trials)
    columns: list[Floats] = []
    values: list[float] = []
    names: list[tuple[str, str]] = []
    counts: list[int] = []
    for cell in range(trials.num_cells):
        inside = cells == cell
        row = int(np.argmax(inside))
        names.append((trials.models[int(trials.which_model[row])], arms[row]))
        counts.append(int(inside.sum()))
        for column in (trials.y, usd):
            mean = float(column[inside].mean())
            values.append(mean)
            columns.append(inside * (column - mean) / inside.mean())
    influence = cluster_sums(np.column_stack(columns), trials.clusters)
    return Estimate(values=np.array(values), influence=influence), names, counts
