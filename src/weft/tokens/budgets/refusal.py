"""The answer of a budget that has no room."""

from __future__ import annotations

from dataclasses import dataclass

from weft.core.errors import InputError, WeftError
from weft.tokens.budgets.node import shown
from weft.tokens.money import Money

__all__ = ["BudgetError", "HandleError", "NodeError"]


@dataclass(kw_only=True, eq=False)
class BudgetError(WeftError):
    """A reservation for which there is no room.

    Args:
        node: path of the node that is in the way.
        left: what is left of it.
    """

    node: str = ""
    left: Money = Money(0)

    def headline(self) -> str:
        """The first line."""
        return f"there is no room in {shown(self.node)}."


class HandleError(InputError):
    """A handle that is not open: settled or released before, or of another budget."""


class NodeError(InputError):
    """A node that is not there, or is closed."""
