"""One option for each step (model, effort, tool), within a budget: a multiple-choice knapsack.

    max sum of value of what is chosen   such that   cost of all <= B, one option a step

- `hull_choice`: the relaxation, in which a step may mix two options. Only options on a step's upper
  hull are ever mixed; upgrades are bought in the order of value per dollar, across steps, until the
  budget is reached. The last one, in part, gives the bound and the shadow price; without it what is
  bought is a choice.
- `exact_choice`: the integer programme, by HiGHS.
- `dynamic_choice`: exact too, over budgets in whole units of cost.

Source: Sinha and Zoltners, Operations Research 1979; Kellerer, Pferschy and Pisinger, Knapsack
Problems, 2004, chapter 11.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TypeAlias

import highspy
import numpy as np
from numpy.typing import NDArray

from weft.core.errors import InfeasibleError, InputError
from weft.tokens.money import NANO, Money

Floats: TypeAlias = NDArray[np.float64]

__all__ = ["Choice", "Option", "Step", "dynamic_choice", "exact_choice", "hull_choice"]

GAP = 1e-9
"""Relative, at which the integer programme is solved. Chosen: above HiGHS' feasibility tolerance,
below any difference in value that is known."""

EXACT = 1e-9
"""Of the budget, by which the solver may go over. Source: HiGHS's least tolerance is 1e-10."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """What could be bought.

    Attributes:
        name: model, effort, tool.
        cost: of it.
        value: of it, in the unit of the whole.

    Raises:
        InputError: the cost is negative or the value no number.
    """

    name: str
    cost: Money
    value: float

    def __post_init__(self) -> None:
        if self.cost.nano < 0 or not math.isfinite(self.value):
            raise InputError(
                need="a cost of at least zero, and a value that is a number",
                got=f"{self}",
                hint="the value of a step that may fail is its chance times what it is worth",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of the work, or a task of many, with its options; one of no cost if it may be left.

    Raises:
        InputError: it has no option.
    """

    name: str
    options: tuple[Option, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(self.options))
        if not self.options:
            raise InputError(need="an option", got=f"none for {self.name!r}", hint="drop the step")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One option for each step.

    Attributes:
        picks: place of the option, step by step.
        value: of all together.
        cost: of all together.
        bound: that no choice within the budget goes beyond.
        shadow_price: value that one unit of currency more would bring, by the relaxation.
    """

    picks: tuple[int, ...]
    value: float
    cost: Money
    bound: float
    shadow_price: float


def hull_choice(steps: Sequence[Step], budget: Money) -> Choice:
    """By upgrades along the hulls; off the bound by less than one upgrade.

    Raises:
        InfeasibleError: the cheapest options cost more than the budget.

    Example:
        >>> from weft.tokens import usd
        >>> small, large = (Option(name=n, cost=usd(c), value=v) for n, c, v in
        ...                 (("small", 1, 0.5), ("large", 4, 0.8)))
        >>> hull_choice([Step(name="plan", options=(small, large))] * 2, usd(6)).picks
        (1, 0)
    """
    hulls = [_hull(step) for step in steps]
    picks = [hull[0] for hull in hulls]
    left = budget.nano - sum(s.options[p].cost.nano for s, p in zip(steps, picks, strict=True))
    _require_within(left, budget)
    upgrades = sorted(
        (
            (-_steepness(step, a, b), number, place)
            for number, (step, hull) in enumerate(zip(steps, hulls, strict=True))
            for place, (a, b) in enumerate(pairwise(hull))
        ),
    )
    bound = sum(step.options[p].value for step, p in zip(steps, picks, strict=True))
    price, is_full = 0.0, False
    stopped: set[int] = set()
    for steepness, number, place in upgrades:
        step, hull = steps[number], hulls[number]
        before, after = step.options[hull[place]], step.options[hull[place + 1]]
        cost = after.cost.nano - before.cost.nano
        if not is_full and cost > left:
            # Up to here choice and relaxation are the same; the rest of the budget is mixed.
            is_full, price = True, -steepness
            bound += price * left / NANO
        if number not in stopped and cost <= left:
            picks[number] = hull[place + 1]
            left -= cost
            bound += 0.0 if is_full else after.value - before.value
        else:
            stopped.add(number)
    return _choice(steps, picks, budget, max(bound, _value(steps, picks)), price)


def exact_choice(steps: Sequence[Step], budget: Money, *, seconds: float = 60.0) -> Choice:
    """The best choice, by HiGHS; its bound is that of the integer programme.

    Args:
        steps: with their options.
        budget: in the currency of the options.
        seconds: after which the best choice so far is taken, with the bound so far.

    Raises:
        InfeasibleError: the cheapest options cost more than the budget.
    """
    start = hull_choice(steps, budget)
    if start.bound <= start.value:
        return start
    sizes = [len(step.options) for step in steps]
    ends = [0, *accumulate(sizes)]
    options = [option for step in steps for option in step.options]
    costs = np.array([option.cost.nano for option in options], dtype=np.float64)
    # Costs relative to the budget keep rows of one size, whatever the currency.
    costs /= max(float(budget.nano), 1.0)
    weights, bound = _solved(np.array([o.value for o in options]), costs, start, ends, seconds)
    picks = [int(np.argmax(weights[a:b])) for a, b in pairwise(ends)]
    if sum(s.options[p].cost.nano for s, p in zip(steps, picks, strict=True)) > budget.nano:
        picks = list(start.picks)  # over by the solver's tolerance; money has none
    if _value(steps, picks) < start.value:
        picks = list(start.picks)
    bound = min(max(bound, _value(steps, picks)), start.bound)
    return _choice(steps, picks, budget, bound, start.shadow_price)


def dynamic_choice(steps: Sequence[Step], budget: Money, unit: Money) -> Choice:
    """The best choice with costs in whole units, by dynamic programming over budgets.

    Args:
        steps: with their options.
        budget: in the currency of the options.
        unit: that every cost is a multiple of; time and memory grow with budget / unit.

    Raises:
        InputError: a cost is no multiple of the unit.
        InfeasibleError: the cheapest options cost more than the budget.
    """
    start = hull_choice(steps, budget)
    room = budget.nano // unit.nano
    odd = [o for step in steps for o in step.options if o.cost.nano % unit.nano]
    if odd:
        raise InputError(
            need=f"costs in whole multiples of {unit}",
            got=f"{odd[0].cost} for {odd[0].name}",
            hint="take a smaller unit, or exact_choice, which needs none",
        )
    best = np.zeros(room + 1)
    taken: list[NDArray[np.int64]] = []
    for step in steps:
        reached = np.full((len(step.options), room + 1), -np.inf)
        for place, option in enumerate(step.options):
            cost = option.cost.nano // unit.nano
            if cost <= room:
                reached[place, cost:] = best[: room + 1 - cost] + option.value
        taken.append(reached.argmax(axis=0))
        best = reached.max(axis=0)
    picks: list[int] = []
    left = room
    for step, own in zip(reversed(steps), reversed(taken), strict=True):
        picks.append(int(own[left]))
        left -= step.options[picks[-1]].cost.nano // unit.nano
    picks.reverse()
    return _choice(steps, picks, budget, _value(steps, picks), start.shadow_price)


def _hull(step: Step) -> list[int]:
    """Places of the options on the upper hull, from the cheapest on, while values rise."""
    places = sorted(
        range(len(step.options)), key=lambda p: (step.options[p].cost.nano, -step.options[p].value)
    )
    chain: list[int] = []
    for place in places:
        if chain and step.options[place].value <= step.options[chain[-1]].value:
            continue
        while len(chain) > 1 and _steepness(step, chain[-2], chain[-1]) <= _steepness(
            step, chain[-1], place
        ):
            chain.pop()
        chain.append(place)
    return chain


def _steepness(step: Step, a: int, b: int) -> float:
    """Value by unit of currency, from one option to a dearer one."""
    before, after = step.options[a], step.options[b]
    return (after.value - before.value) / ((after.cost.nano - before.cost.nano) / NANO)


def _solved(
    values: Floats, costs: Floats, start: Choice, ends: list[int], seconds: float
) -> tuple[Floats, float]:
    """Weights of all options and the bound; costs are shares of the budget."""
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highs.setOptionValue("threads", 1)
    highs.setOptionValue("mip_rel_gap", GAP)
    highs.setOptionValue("time_limit", seconds)
    # A budget is exact: what goes over by a tolerance would have to be thrown away.
    highs.setOptionValue("primal_feasibility_tolerance", EXACT)
    highs.setOptionValue("mip_feasibility_tolerance", EXACT)
    model = highspy.HighsLp()
    count, steps = len(values), len(ends) - 1
    model.num_col_, model.num_row_ = count, steps + 1
    model.sense_ = highspy.ObjSense.kMaximize
    model.col_cost_ = values
    model.col_lower_, model.col_upper_ = np.zeros(count), np.ones(count)
    model.row_lower_ = np.array([1.0] * steps + [-math.inf])
    model.row_upper_ = np.ones(steps + 1)
    # A row of ones for the options of each step, and the row of costs.
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.array([*ends, 2 * count])
    model.a_matrix_.index_ = np.tile(np.arange(count), 2)
    model.a_matrix_.value_ = np.concatenate([np.ones(count), costs])
    model.integrality_ = [highspy.HighsVarType.kInteger] * count
    highs.passModel(model)
    first = highspy.HighsSolution()
    weights = np.zeros(count)
    weights[np.array(ends[:-1]) + np.array(start.picks)] = 1.0
    first.col_value = list(weights)
    highs.setSolution(first)
    highs.run()
    found = np.array(highs.getSolution().col_value)
    return (found if len(found) else weights), float(highs.getInfo().mip_dual_bound)


def _value(steps: Sequence[Step], picks: Sequence[int]) -> float:
    return sum(step.options[p].value for step, p in zip(steps, picks, strict=True))


def _choice(
    steps: Sequence[Step], picks: Sequence[int], budget: Money, bound: float, price: float
) -> Choice:
    nano = sum(step.options[p].cost.nano for step, p in zip(steps, picks, strict=True))
    return Choice(
        picks=tuple(picks),
        value=_value(steps, picks),
        cost=Money(nano, budget.currency),
        bound=bound,
        shadow_price=price,
    )


def _require_within(left: int, budget: Money) -> None:
    if left < 0:
        raise InfeasibleError(
            need=f"options of all steps within {budget}",
            got=f"the cheapest ones cost {Money(budget.nano - left, budget.currency)}",
            options=("a larger budget", "an option of no cost for steps that may be left out"),
        )
