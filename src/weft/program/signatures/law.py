"""What signatures are written with: the kinds of argument, and how a broken law is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from weft.core.errors import VerifyError
from weft.program.types import TensorType

__all__ = ["OFF", "DTypeName", "Dims", "Number", "Outputs", "Signature", "require", "require_dim"]

Dims: TypeAlias = tuple[int, ...]
Number: TypeAlias = int | float
DTypeName: TypeAlias = str
Outputs: TypeAlias = tuple[TensorType, ...]
Signature: TypeAlias = Callable[..., Outputs]

OFF: Dims = (0,)
"""Shape of an output that an output mask switches off."""


def require(law: bool, need: str, got: object, hint: str = "") -> None:
    """Raise a VerifyError unless the law holds."""
    if not law:
        raise VerifyError(need=need, got=str(got), hint=hint)


def require_dim(x: TensorType, dim: int) -> None:
    """Raise a VerifyError unless `dim` is a dim of the tensor, counted from 0."""
    if not 0 <= dim < len(x.shape):
        raise VerifyError(
            need="a dim of the tensor, counted from 0",
            got=f"dim {dim} of {x}",
            hint="add the rank to a negative dim",
        )
