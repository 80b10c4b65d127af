"""What canonical rules are written with: adding nodes at one place of a program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch._ops import OpOverload

from weft.program.builder import Builder
from weft.program.graph import Arg, Phase, Value
from weft.program.types import DType, TensorType

__all__ = [
    "Emit",
    "Number",
    "Operand",
    "Results",
    "Rule",
    "Rules",
    "dim_of",
    "dims_of",
    "number_of",
    "overload",
    "positional",
]

Number: TypeAlias = int | float
Operand: TypeAlias = "Value | int | float"
Results: TypeAlias = "Value | tuple[Value | None, ...]"
Rule: TypeAlias = Callable[..., Results]
"""A rule takes `Emit` and the call's arguments, adds nodes and returns their values. It
returns NotImplemented for arguments that it has no form for."""

Rules: TypeAlias = dict[OpOverload, Rule]


@dataclass(frozen=True, slots=True, kw_only=True)
class Emit:
    """Adds nodes at one place of the program."""

    builder: Builder
    phase: Phase
    scope: str
    source: str
    zeros: set[Value]
    """Constant tensors of zeros made so far, shared by all places."""

    def __call__(self, op: str, *args: Arg) -> Value:
        return self.builder.add(op, *args, phase=self.phase, scope=self.scope, source=self.source)

    def all(self, op: str, *args: Arg) -> tuple[Value, ...]:
        """Add an operator with several outputs."""
        return self.builder.add_all(
            op, *args, phase=self.phase, scope=self.scope, source=self.source
        )

    def type(self, value: Value) -> TensorType:
        """Type of a value."""
        return self.builder.type_of(value)

    def rank(self, value: Value) -> int:
        """Number of dims of a value."""
        return len(self.type(value).shape)

    def cast(self, value: Value, dtype: DType) -> Value:
        """The value in another element type."""
        return value if self.type(value).dtype is dtype else self("cast", value, dtype.value)

    def view(self, value: Value, size: tuple[int, ...]) -> Value:
        """The value in another shape of as many elements."""
        return value if self.type(value).shape == size else self("view", value, size)

    def full(self, size: tuple[int, ...], value: Number, dtype: DType) -> Value:
        """A constant tensor."""
        made = self("full", size, number_of(value, dtype), dtype.value)
        if not value:
            self.zeros.add(made)
        return made


def number_of(value: Number, dtype: DType) -> Number:
    """A plain number in the Python type of an element type."""
    if dtype is DType.BOOL:
        return bool(value)
    return float(value) if dtype.is_float else int(value)


def dim_of(dim: int, rank: int) -> int:
    """A dim counted from 0."""
    return dim % rank if rank else 0


def dims_of(dims: Sequence[int] | int | None, rank: int) -> tuple[int, ...]:
    """Dims counted from 0, in order; all of them if none are named."""
    if isinstance(dims, int):
        dims = (dims,)
    return tuple(sorted(dim_of(d, rank) for d in dims)) if dims else tuple(range(rank))


def overload(name: str) -> OpOverload:
    """An ATen overload by name; the default one if none is named."""
    packet, _, suffix = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), suffix or "default")


def positional(op: str) -> Rule:
    """Rule of an operator whose arguments already have the table's form."""

    def rule(emit: Emit, *args: Arg) -> Results:
        made = emit.all(op, *args)
        return made[0] if len(made) == 1 else made

    return rule
