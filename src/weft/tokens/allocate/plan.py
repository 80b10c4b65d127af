"""The budget plan, as data: who gets what, what that brings, and what a dollar more would."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from weft.core.errors import InputError
from weft.core.files import parsed, read_as, write_whole
from weft.tokens.money import Money

__all__ = ["BudgetPlan", "Line", "load_budget_plan", "save_budget_plan"]

VERSION = 1
MOST_LINES = 12
"""Lines that `explain` shows. Chosen: half a screen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one agent, task or step gets.

    Attributes:
        name: who.
        pick: name of the option that was chosen; empty for a part of a budget.
        cost: of it.
        value: predicted, of it.
        second: what lost against it, in words; may be empty.
    """

    name: str
    pick: str = ""
    cost: Money
    value: float
    second: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetPlan:
    """A decision what to spend on.

    Attributes:
        lines: one for each agent, task or step.
        budget: for all of them.
        value: predicted, of all together.
        bound: that no plan within the budget goes beyond, by the same curves or menus.
        shadow_price: value of one unit of currency more.
        unit: of value: "passes", "usd".
        policy: who decided, in words.

    Raises:
        InputError: lines cost more than the budget, two have one name, or the bound is below the
            value.

    Example:
        >>> from weft.tokens import usd
        >>> line = Line(name="review", pick="large", cost=usd(2), value=0.9)
        >>> plan = BudgetPlan(lines=(line,), budget=usd(3), value=0.9, bound=1.0, shadow_price=0.1)
        >>> print(plan)
        2 of 3 usd for 0.9 passes
        >>> BudgetPlan.from_json(plan.to_json()) == plan
        True
    """

    lines: tuple[Line, ...]
    budget: Money
    value: float
    bound: float
    shadow_price: float
    unit: str = "passes"
    policy: str = ""

    def __post_init__(self) -> None:
        names = [line.name for line in self.lines]
        rounding = 1e-9 * max(1.0, abs(self.value))
        if (
            self.cost > self.budget
            or len(set(names)) < len(names)
            or not self.bound >= self.value - rounding
            or not self.shadow_price >= 0.0
        ):
            raise InputError(
                need="lines of different names within the budget, and a bound above the value",
                got=f"{len(names)} lines for {self.cost} of {self.budget}, value {self.value:g}, "
                f"bound {self.bound:g}",
                hint="make plans with plan_split or plan_menu",
            )

    @property
    def cost(self) -> Money:
        """Of all lines."""
        return sum((line.cost for line in self.lines), Money(0, self.budget.currency))

    @property
    def gap(self) -> float:
        """How much better another plan could be, at most, as a share of the value."""
        if self.bound <= self.value:
            return 0.0
        return (self.bound - self.value) / max(abs(self.value), 1e-300)

    def __str__(self) -> str:
        return f"{self.cost.amount.normalize():f} of {self.budget} for {self.value:.4g} {self.unit}"

    def explain(self) -> str:
        """In words: numbers, then who gets what, then what lost."""
        by = f" by {self.policy}" if self.policy else ""
        lines = [
            f"{self}{by}; no plan brings more than {self.bound:.4g} (gap {self.gap:.2%})",
            f"  one {self.budget.currency} more would bring {self.shadow_price:.4g} {self.unit}",
        ]
        ordered = sorted(self.lines, key=lambda line: -line.cost.nano)
        for line in ordered[:MOST_LINES]:
            pick = f" {line.pick}" if line.pick else ""
            second = f"; {line.second}" if line.second else ""
            lines.append(f"  {line.name:<12}{pick} {line.cost} for {line.value:.4g}{second}")
        if len(ordered) > MOST_LINES:
            rest = ordered[MOST_LINES:]
            cost = sum((line.cost for line in rest), Money(0, self.budget.currency))
            lines.append(f"  {len(rest)} others {cost} for {sum(line.value for line in rest):.4g}")
        return "\n".join(lines)

    def to_json(self) -> str:
        """The plan as one line of JSON; inverse of `from_json`."""
        return json.dumps({"weft": "budget plan", "version": VERSION, **asdict(self)})

    @staticmethod
    def from_json(text: str) -> BudgetPlan:
        """Inverse of `to_json`.

        Raises:
            FileError: the text is no budget plan of this version.
        """
        hint = "write one with weft.tokens.allocate.save_budget_plan"
        return parsed(text, "budget plan", VERSION, _plan, hint=hint)


def _plan(plain: Mapping[str, Any]) -> BudgetPlan:
    own: dict[str, Any] = {**plain, "budget": _money(plain["budget"])}
    own["lines"] = tuple(_line(line) for line in plain["lines"])
    return BudgetPlan(**own)


def _line(plain: Mapping[str, Any]) -> Line:
    own: dict[str, Any] = {**plain, "cost": _money(plain["cost"])}
    return Line(**own)


def _money(plain: Mapping[str, Any]) -> Money:
    if not isinstance(plain["nano"], int):
        raise TypeError(f"whole billionths, not {plain['nano']!r}")
    return Money(plain["nano"], str(plain["currency"]))


def save_budget_plan(plan: BudgetPlan, path: str | Path) -> None:
    """Write a plan to a file.

    Raises:
        FileError: the file cannot be written.
    """
    write_whole(path, plan.to_json() + "\n", "a budget plan")


def load_budget_plan(path: str | Path) -> BudgetPlan:
    """Read a plan from a file.

    Raises:
        FileError: the file is missing or holds no budget plan of this version.
    """
    hint = "write one with weft.tokens.allocate.save_budget_plan"
    return read_as(path, BudgetPlan.from_json, "a budget plan", hint)
