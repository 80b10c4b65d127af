"""A sharding rule, and the operator call that it is about.

Knows how to read an operator's arguments. Does not know any operator: that is what the other
modules of this package hold, one family each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from weft.parallel.placement import REPLICATED, Placement, format_sharding
from weft.program.graph import Arg, Value, values_in
from weft.program.types import TensorType

__all__ = ["Call", "Family", "Rule"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What one mesh axis may do to an operator.

    If each operand lies along the axis as `operands[k]` says and every device applies the
    operator to its own parts, then the results lie along the axis as `outputs[i]` says.

    Example:
        >>> str(Rule(outputs=(-2,), operands=(1, 0)))
        'P <- S1,S0'
    """

    outputs: tuple[Placement, ...]
    operands: tuple[Placement, ...]

    def __str__(self) -> str:
        return f"{format_sharding(self.outputs)} <- {format_sharding(self.operands)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One operator application with its global types.

    Attributes:
        op: operator name.
        args: arguments in schema order.
        operands: type of each value among the arguments, in order, repeats included.
        outputs: type of each output.
    """

    op: str
    args: tuple[Arg, ...]
    operands: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]

    def operand(self, position: int) -> int | None:
        """Index among the operands of argument `position`, None if it is not a value."""
        if position >= len(self.args) or not isinstance(self.args[position], Value):
            return None
        return sum(1 for _ in values_in(self.args[:position]))

    def number(self, position: int, default: float) -> float:
        """Numeric argument; `default` where it is left out or None."""
        arg = self.args[position] if position < len(self.args) else None
        return arg if isinstance(arg, int | float) else default

    def numbers(self, position: int) -> tuple[int, ...]:
        """Argument that is a list of integers; a lone integer is a list of one."""
        arg = self.args[position] if position < len(self.args) else None
        items = arg if isinstance(arg, tuple) else (arg,)
        return tuple(item for item in items if isinstance(item, int))

    def flag(self, position: int) -> bool:
        """True if the argument is there and true."""
        return position < len(self.args) and self.args[position] is True

    def dim(self, position: int, rank: int, default: int = 0) -> int:
        """Argument that names a dim of a tensor of `rank` dims, counted from the front."""
        dim = int(self.number(position, default))
        return dim + rank if dim < 0 else dim

    def rule(
        self,
        outputs: tuple[Placement, ...],
        operands: dict[int | None, Placement] | None = None,
    ) -> Rule:
        """The rule with these outputs, and operands replicated unless named.

        Args:
            outputs: placement of each output.
            operands: placement by operand index; the key None, an absent argument, is skipped.
        """
        places = operands or {}
        return Rule(outputs, tuple(places.get(k, REPLICATED) for k in range(len(self.operands))))


Family: TypeAlias = Callable[[Call], Iterator[Rule]]
"""Yields the rules of a call other than the one with everything replicated."""
