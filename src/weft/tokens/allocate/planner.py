"""From curves or menus to a budget plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from weft.tokens.allocate.curve import Curve
from weft.tokens.allocate.menu import Choice, Option, Step, exact_choice, hull_choice
from weft.tokens.allocate.plan import BudgetPlan, Line
from weft.tokens.allocate.split import split_budget
from weft.tokens.money import NANO, Money

__all__ = ["plan_menu", "plan_split"]


def plan_split(curves: Mapping[str, Curve], budget: Money, *, unit: str = "passes") -> BudgetPlan:
    """Split a budget over agents or tasks, by what each dollar brings.

    Args:
        curves: worth of dollars, by name.
        budget: in dollars.
        unit: of worth.

    Raises:
        InputError: there is nobody, or no budget.

    Example:
        >>> from weft.tokens import usd
        >>> from weft.tokens.allocate import SaturatingCurve
        >>> easy = SaturatingCurve(worth=1.0, scale_usd=0.5)
        >>> plan = plan_split({"easy": easy, "hard": SaturatingCurve(worth=1, scale_usd=4)}, usd(3))
        >>> [str(line.cost) for line in plan.lines]
        ['1.257529574 usd', '1.742470425 usd']
    """
    found = split_budget(curves, float(budget.amount))
    # Rounded down, and what that leaves is dealt out: together they are the sum to the billionth.
    nanos = [int(Decimal(usd) * NANO) for usd in found.usd.values()]
    left = min(round(sum(found.usd.values()) * NANO), budget.nano) - sum(nanos)
    lines: list[Line] = []
    for place, ((name, curve), nano) in enumerate(zip(curves.items(), nanos, strict=True)):
        cost = Money(nano + (place < left), budget.currency)
        lines.append(Line(name=name, cost=cost, value=curve.value(float(cost.amount))))
    return BudgetPlan(
        lines=tuple(lines),
        budget=budget,
        value=sum(line.value for line in lines),
        bound=found.bound,
        shadow_price=found.shadow_price,
        unit=unit,
        policy="water-filling",
    )


def plan_menu(
    steps: Sequence[Step], budget: Money, *, exact: bool = True, unit: str = "passes"
) -> BudgetPlan:
    """Choose one option for each step.

    Args:
        steps: with their options.
        budget: in the currency of the options.
        exact: by the integer programme, or by upgrades along hulls, which takes no time.
        unit: of values.

    Raises:
        InfeasibleError: the cheapest options cost more than the budget.
    """
    found = exact_choice(steps, budget) if exact else hull_choice(steps, budget)
    lines = [
        _line(step, step.options[pick], found)
        for step, pick in zip(steps, found.picks, strict=True)
    ]
    return BudgetPlan(
        lines=tuple(lines),
        budget=budget,
        value=found.value,
        bound=found.bound,
        shadow_price=found.shadow_price,
        unit=unit,
        policy="integer programme" if exact else "hull",
    )


def _line(step: Step, own: Option, found: Choice) -> Line:
    def worth(option: Option) -> float:
        return option.value - found.shadow_price * float(option.cost.amount)

    others = [option for option in step.options if option is not own]
    second = max(others, key=worth, default=None)
    said = ""
    if second is not None:
        gain, more = second.value - own.value, second.cost - own.cost
        said = f"{second.name} {gain:+.3g} for {'+' if more.nano >= 0 else ''}{more}"
    return Line(name=step.name, pick=own.name, cost=own.cost, value=own.value, second=said)
