"""A budget over time: what is worth spending now, of tasks that come one by one.

The shadow price of the budget is not known before all tasks are. It is followed: each task takes
the option of most `value - price * cost`, and the price then rises where more was spent than the
budget's share of one task, and falls where less was:

    price <- price * exp(rate * (cost / share - 1))

With tasks that are drawn alike, value falls behind the best in hindsight by order sqrt(T), and the
budget is never exceeded. A split known beforehand (`split_budget`, `hull_choice`) gives the first
price.

Source: Balseiro, Lu and Mirrokni, Operations Research 2023 (dual mirror descent, here with
entropy); Mehta, Saberi, Vazirani and Vazirani, JACM 2007 (AdWords).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from weft.core.errors import InputError
from weft.tokens.allocate.menu import Option
from weft.tokens.money import Money

__all__ = ["Pace", "pace_start", "pace_update", "spend_more", "which_option"]

LARGEST_JUMP = 1.0
"""Of the price's logarithm in one step. Chosen: one task of a hundred times the share must not
close the budget for a thousand others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Where a budget stands.

    Attributes:
        left: of the budget.
        tasks_left: that are still expected.
        price: value that one unit of currency has to bring.
        rate: how quickly the price follows.
    """

    left: Money
    tasks_left: int
    price: float
    rate: float

    @property
    def share(self) -> float:
        """Of what is left, for each task that is still expected [units of currency]."""
        return float(self.left.amount) / max(self.tasks_left, 1)


def pace_start(budget: Money, tasks: int, price: float, *, rate: float | None = None) -> Pace:
    """Before the first task.

    Args:
        budget: for all tasks.
        tasks: expected.
        price: a first guess: the shadow price of a plan, or value over cost of a typical task.
        rate: of following; 1 / sqrt(tasks) if None, which balances a price that is slow to be found
            and one that swings.

    Raises:
        InputError: the budget, the number of tasks or the price is not above zero.

    Example:
        >>> from weft.tokens import usd
        >>> pace = pace_start(usd(10), tasks=100, price=2.0)
        >>> spend_more(pace, gain=0.3, cost=usd("0.1")), spend_more(pace, gain=0.1, cost=usd("0.1"))
        (True, False)
    """
    if budget.nano <= 0 or tasks < 1 or not 0.0 < price < math.inf:
        raise InputError(
            need="a budget, a number of tasks and a first price above zero",
            got=f"{budget}, {tasks} tasks, price {price}",
            hint="price: the shadow price of `plan_menu`, for example",
        )
    return Pace(
        left=budget,
        tasks_left=tasks,
        price=price,
        rate=1.0 / math.sqrt(tasks) if rate is None else rate,
    )


def spend_more(pace: Pace, gain: float, cost: Money) -> bool:
    """Whether one step more of a task is worth its cost: another try, a tool, more effort.

    Args:
        pace: where the budget stands.
        gain: value that is expected of it.
        cost: of it.
    """
    return cost.nano <= pace.left.nano and gain > pace.price * float(cost.amount)


def which_option(pace: Pace, options: Sequence[Option]) -> int | None:
    """Place of the option of most value beyond its price; None where none is worth its cost."""
    best, most = None, 0.0
    for place, option in enumerate(options):
        worth = option.value - pace.price * float(option.cost.amount)
        if option.cost <= pace.left and (worth > most or (best is None and worth == most)):
            best, most = place, worth
    return best


def pace_update(pace: Pace, spent: Money) -> Pace:
    """After a task.

    Raises:
        InputError: more was spent than was left.
    """
    if spent > pace.left:
        raise InputError(
            need=f"at most the {pace.left} that were left",
            got=f"{spent}",
            hint="reserve before spending: weft.tokens.budgets",
        )
    off = 1.0 if pace.share == 0.0 else float(spent.amount) / pace.share - 1.0
    jump = min(max(pace.rate * off, -LARGEST_JUMP), LARGEST_JUMP)
    return replace(
        pace,
        left=pace.left - spent,
        tasks_left=max(pace.tasks_left - 1, 0),
        price=pace.price * math.exp(jump),
    )
