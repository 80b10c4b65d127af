"""Types that an operator makes from given arguments, and whether it takes them at all.

Knows how to check arguments against a signature's annotations. Does not know any operator:
those are in `weft.program.signatures`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from weft.core.errors import VerifyError
from weft.program.graph import Arg, Value
from weft.program.operators import operator
from weft.program.signatures import SIGNATURES
from weft.program.signatures.law import Signature
from weft.program.types import DType, TensorType

__all__ = ["Bound", "bind", "infer_types"]

Bound: TypeAlias = "TensorType | int | float | bool | str | tuple[Bound, ...] | None"
"""An argument with values replaced by their types."""


def bind(args: tuple[Arg, ...], operands: Iterator[TensorType]) -> tuple[Bound, ...]:
    """The arguments with every value replaced by the next operand.

    Example:
        >>> x = TensorType(DType.F32, (2,))
        >>> bind((Value(3), 0.5, (Value(4),)), iter((x, x)))[1:]
        (0.5, (TensorType(dtype=<DType.F32: 'f32'>, shape=(2,)),))
    """
    return tuple(
        next(operands)
        if isinstance(arg, Value)
        else bind(arg, operands)
        if isinstance(arg, tuple)
        else arg
        for arg in args
    )


def infer_types(
    op: str, args: tuple[Arg, ...], operands: tuple[TensorType, ...]
) -> tuple[TensorType, ...]:
    """Types of the outputs of an operator.

    Args:
        op: operator name, any of the table but "input".
        args: arguments in schema order; trailing defaults may be left out.
        operands: type of each value among the arguments, in order, repeats included.

    Raises:
        VerifyError: no such operator, or arguments that it does not take.

    Example:
        >>> a, b = TensorType(DType.F32, (2, 3)), TensorType(DType.F32, (5, 3))
        >>> [str(t) for t in infer_types("einsum", ("td,ed->te", Value(0), Value(1)), (a, b))]
        ['f32[2,5]']
    """
    schema = _SCHEMAS.get(op)
    if schema is None:
        operator(op)
        raise VerifyError(
            need="an operator that makes its output from its arguments",
            got=repr(op),
            hint="the type of an input is given, not inferred",
        )
    bound = bind(args, iter(operands))
    try:
        schema.check(bound)
        return schema.signature(*bound)
    except VerifyError as error:
        raise error.within(f"{op}({', '.join(map(_show, bound))})") from error.__cause__


def _show(arg: Bound) -> str:
    if isinstance(arg, tuple):
        return f"({', '.join(map(_show, arg))})"
    return str(arg) if isinstance(arg, TensorType) else repr(arg)


def _is_tensor(arg: Bound) -> bool:
    return isinstance(arg, TensorType)


def _is_int(arg: Bound) -> bool:
    return isinstance(arg, int) and not isinstance(arg, bool)


def _is_number(arg: Bound) -> bool:
    return isinstance(arg, int | float)


def _is_bool(arg: Bound) -> bool:
    return isinstance(arg, bool)


def _is_text(arg: Bound) -> bool:
    return isinstance(arg, str)


def _is_none(arg: Bound) -> bool:
    return arg is None


_DTYPES = frozenset(dtype.value for dtype in DType)


def _is_dtype(arg: Bound) -> bool:
    return arg in _DTYPES


def _is_dims(arg: Bound) -> bool:
    return isinstance(arg, tuple) and all(
        isinstance(a, int) and not isinstance(a, bool) and a >= 0 for a in arg
    )


def _is_tensors(arg: Bound) -> bool:
    return isinstance(arg, tuple) and all(isinstance(a, TensorType) for a in arg)


def _is_switches(arg: Bound) -> bool:
    return isinstance(arg, tuple) and all(isinstance(a, bool) for a in arg)


_CHECKS: Mapping[str, tuple[Callable[[Bound], bool], str]] = MappingProxyType(
    {
        "TensorType": (_is_tensor, "a tensor"),
        "int": (_is_int, "an integer"),
        "Number": (_is_number, "a number"),
        "bool": (_is_bool, "True or False"),
        "str": (_is_text, "text"),
        "DTypeName": (_is_dtype, "the name of an element type"),
        "Dims": (_is_dims, "a tuple of integers of at least 0"),
        "tuple[TensorType, ...]": (_is_tensors, "a tuple of tensors"),
        "tuple[bool, ...]": (_is_switches, "a tuple of switches"),
        "None": (_is_none, "None"),
    }
)


@dataclass(frozen=True, slots=True)
class _Schema:
    """A signature with a check for each of its parameters."""

    signature: Signature
    parameters: tuple[tuple[str, tuple[Callable[[Bound], bool], ...], str], ...]
    num_required: int

    def check(self, bound: tuple[Bound, ...]) -> None:
        if not self.num_required <= len(bound) <= len(self.parameters):
            names = ", ".join(name for name, _, _ in self.parameters)
            raise VerifyError(
                need=f"{self.num_required} to {len(self.parameters)} arguments: {names}",
                got=f"{len(bound)} arguments",
                hint="give arguments in schema order; trailing defaults may be left out",
            )
        for arg, (name, checks, wanted) in zip(bound, self.parameters, strict=False):
            if not any(check(arg) for check in checks):
                raise VerifyError(
                    need=f"{wanted} as {name}",
                    got=_show(arg),
                    hint="see the operator's signature in weft.program.signatures",
                )


def _schema_of(signature: Signature) -> _Schema:
    parameters = inspect.signature(signature).parameters.values()
    rows: list[tuple[str, tuple[Callable[[Bound], bool], ...], str]] = []
    for parameter in parameters:
        kinds = [_CHECKS[kind] for kind in str(parameter.annotation).split(" | ")]
        wanted = " or ".join(words for _, words in kinds)
        rows.append((parameter.name, tuple(check for check, _ in kinds), wanted))
    required = sum(p.default is inspect.Parameter.empty for p in parameters)
    return _Schema(signature, tuple(rows), required)


_SCHEMAS: Mapping[str, _Schema] = MappingProxyType(
    {op: _schema_of(signature) for op, signature in SIGNATURES.items()}
)
