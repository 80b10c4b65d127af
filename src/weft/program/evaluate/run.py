"""Runs a program on NumPy arrays: the oracle that other ways of running it are compared with.

Straightforward and slow. In f64 its results are good to about 1e-14; in f32 sums are NumPy's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from weft.core.errors import InputError, VerifyError
from weft.program.evaluate.arrays import Array, compute_form, held
from weft.program.evaluate.elementwise import ELEMENTWISE
from weft.program.evaluate.products import PRODUCTS
from weft.program.evaluate.shapes import SHAPES
from weft.program.evaluate.spatial import SPATIAL
from weft.program.graph import Arg, Node, Program, Value
from weft.program.operators import operator
from weft.program.types import TensorType

__all__ = ["apply_operator", "evaluate", "evaluate_nodes"]

_Given: TypeAlias = "Array | int | float | bool | str | tuple[_Given, ...] | None"

_KERNELS: Mapping[str, Callable[..., Array | tuple[Array, ...]]] = MappingProxyType(
    {**ELEMENTWISE, **SHAPES, **PRODUCTS, **SPATIAL}
)


def evaluate(program: Program, inputs: Mapping[str, Array]) -> tuple[float, dict[str, Array]]:
    """Run one step.

    Args:
        program: a legal program.
        inputs: an array for each input, by name; bf16 ones as f32.

    Returns:
        The loss, and the next value of each input that the step changes, by name.

    Raises:
        InputError: an input is missing, unknown, or has another shape or kind of element.

    Example:
        >>> from weft.program.builder import Builder
        >>> from weft.program.graph import Role
        >>> from weft.program.types import DType
        >>> b = Builder("square")
        >>> x = b.input("batch.x", Role.BATCH, TensorType(DType.F64, (3,)))
        >>> program = b.build(b.add("sum", b.add("mul.Tensor", x, x), (0,)))
        >>> evaluate(program, {"batch.x": np.array([1.0, 2.0, 3.0])})
        (14.0, {})
    """
    values = evaluate_nodes(program, inputs)
    name_of = {given.node: given.name for given in program.inputs}
    updates = {name_of[n]: values[value.node][value.output] for n, value in program.updates}
    return float(values[program.loss.node][program.loss.output]), updates


def evaluate_nodes(program: Program, inputs: Mapping[str, Array]) -> tuple[tuple[Array, ...], ...]:
    """Run one step and return every output of every node.

    Raises:
        InputError: as `evaluate`.
    """
    _require_names(program, inputs)
    values: list[tuple[Array, ...]] = []
    for number, node in enumerate(program.nodes):
        given = program.input_by_node.get(number)
        if given is not None:
            values.append((_held_input(given.name, inputs[given.name], node.outputs[0]),))
        else:
            values.append(_evaluate_node(node, values))
    return tuple(values)


def apply_operator(
    op: str, args: tuple[_Given, ...], outputs: tuple[TensorType, ...]
) -> tuple[Array, ...]:
    """Apply one operator to arrays.

    Args:
        op: operator name, any but "input".
        args: arguments in schema order, arrays in place of values.
        outputs: type of each output.

    Returns:
        The outputs, held as `weft.program.evaluate.arrays` says.

    Raises:
        VerifyError: no such operator, or it makes another shape than `outputs` says.
    """
    kernel = _KERNELS.get(op)
    if kernel is None:
        operator(op)
        raise VerifyError(need="an operator that computes", got=repr(op))
    # Overflow to infinity and 0/0 are results like others, as they are for ATen.
    with np.errstate(all="ignore"):
        made = kernel(*map(_compute_form, args))
    results = made if isinstance(made, tuple) else (made,)
    shapes = tuple(np.shape(result) for result in results)
    if shapes != tuple(of.shape for of in outputs):
        raise VerifyError(
            need=f"{op} to make {', '.join(map(str, outputs))}",
            got=f"shapes {', '.join(map(str, shapes))}",
            hint="verify the program first",
        )
    return tuple(held(result, of) for result, of in zip(results, outputs, strict=True))


def _compute_form(arg: _Given) -> _Given:
    if isinstance(arg, tuple):
        return tuple(map(_compute_form, arg))
    return compute_form(arg) if isinstance(arg, np.ndarray) else arg


def _evaluate_node(node: Node, values: list[tuple[Array, ...]]) -> tuple[Array, ...]:
    def filled(arg: Arg) -> _Given:
        if isinstance(arg, Value):
            return values[arg.node][arg.output]
        return tuple(map(filled, arg)) if isinstance(arg, tuple) else arg

    return apply_operator(node.op, tuple(map(filled, node.args)), node.outputs)


def _require_names(program: Program, inputs: Mapping[str, Array]) -> None:
    missing = sorted(set(program.input_by_name) - set(inputs))
    unknown = sorted(set(inputs) - set(program.input_by_name))
    if missing or unknown:
        raise InputError(
            need=f"an array for each input of {program.name}, by name",
            got=f"missing {', '.join(missing[:5]) or 'none'}; "
            f"unknown {', '.join(unknown[:5]) or 'none'}",
            hint="names are those of Program.inputs",
        )


def _held_input(name: str, array: Array, of: TensorType) -> Array:
    array = np.asarray(array)
    fits = array.dtype.kind == "f" if of.dtype.is_float else array.dtype.kind in "biu"
    if array.shape != of.shape or not fits:
        raise InputError(
            need=f"{name} : {of}",
            got=f"an array of {array.dtype} with shape {array.shape}",
            hint="pass bf16 tensors as float32 arrays",
        )
    return held(array, of)
