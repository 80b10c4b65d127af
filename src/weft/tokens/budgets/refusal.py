"""What a budget says where something is refused, whoever keeps it."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

from weft.core.errors import InputError, WeftError
from weft.tokens.budgets.node import Amounts, Cap, shown, told
from weft.tokens.budgets.records import Account, Hold
from weft.tokens.money import Money

__all__ = [
    "BudgetError",
    "HandleError",
    "NodeError",
    "child_there",
    "no_cap",
    "no_handle",
    "no_node",
    "no_room",
    "not_delegated",
    "other_caps",
    "other_key",
    "overrun",
    "pays_child",
    "shut_node",
    "wrong_units",
]


@dataclass(kw_only=True, eq=False)
class BudgetError(WeftError):
    """A reservation for which there is no room.

    Args:
        node: path of the node that is in the way.
        left: what is left of it.
    """

    node: str = ""
    left: Money = field(default_factory=lambda: Money(0))

    def headline(self) -> str:
        """The first line."""
        return f"there is no room in {shown(self.node)}."


class HandleError(InputError):
    """A handle that is not open: settled or released before, or of another budget."""


class NodeError(InputError):
    """A node that is not there, or is closed."""


def no_room(own: Account, asked: int) -> BudgetError:
    """A cap is in the way."""
    unit = own.unit
    return BudgetError(
        need=f"{Money(asked, unit)} within what is left of {Cap(Money(own.cap, unit), own.window)}",
        got=f"{Money(own.left, unit)} left: {Money(own.spent, unit)} spent, "
        f"{Money(own.held, unit)} held by {own.flying} in flight",
        hint="wait until some of those are settled, reserve less, or set_cap",
        node=own.node,
        left=Money(own.left, unit),
    )


def overrun(node: str, unit: str, nano: int) -> str:
    """More was spent than there was room for."""
    return f"{Money(nano, unit)} more than {shown(node)} had room for"


def no_node(path: str) -> NodeError:
    """It was never added."""
    return NodeError(
        need="a node of the budget",
        got=f"{shown(path)}, which is not there",
        hint="add it first: budget.add(path, usd(5))",
    )


def shut_node(path: str) -> NodeError:
    """It was closed."""
    return NodeError(
        need="a node that is open",
        got=f"{shown(path)}, which was closed",
        hint="delegate under another name",
    )


def child_there(path: str) -> NodeError:
    """A delegation would reuse a name."""
    return NodeError(
        need="a name that no node beside it has or had",
        got=f"{shown(path)}",
        hint="add a number to it",
    )


def other_caps(path: str) -> NodeError:
    """A node is there, with other caps."""
    return NodeError(
        need=f"{shown(path)} with the caps that it has",
        got="others",
        hint="standing(path) shows them; set_cap changes one",
    )


def no_cap(path: str) -> NodeError:
    """A cap to be changed is not there."""
    return NodeError(
        need=f"a cap that {shown(path)} has, in the same unit and window",
        got="none, or that of a delegation",
        hint="standing(path) shows the caps; extend the handle of a delegation",
    )


def not_delegated(path: str, state: str) -> NodeError:
    """A node to be closed cannot be."""
    return NodeError(
        need=f"{shown(path)} delegated, open, and without handles in flight",
        got=state,
        hint="settle or release its handles first, or recover() those left behind",
    )


def wrong_units(units: Set[str], amounts: Amounts) -> InputError:
    """Amounts are not of the units that are capped, or held."""
    return InputError(
        need=f"an amount in each of: {', '.join(sorted(units))}",
        got=told(amounts),
        hint='give several in a tuple: (usd("0.02"), Money(4096 * NANO, "tokens"))',
    )


def other_key(first: Hold, again: Hold) -> InputError:
    """A key is in use for another reservation."""
    return InputError(
        need=f"the same reservation as the first under key {again.key!r}: "
        f"{told(first.asked)} of {shown(first.child or first.node)}",
        got=f"{told(again.asked)} of {shown(again.child or again.node)}",
        hint="give each reservation a key of its own, and the same only to its retries",
    )


def no_handle(handle: str) -> HandleError:
    """It is not open."""
    return HandleError(
        need="a handle that is open",
        got=f"{handle}, which was settled or released before, or is of another budget",
        hint="settle each handle once; what the first time said stands",
    )


def pays_child(path: str) -> HandleError:
    """It is that of a delegation."""
    return HandleError(
        need="a handle of a call",
        got=f"that which pays for {shown(path)}",
        hint="close_node gives back what the child did not spend",
    )
