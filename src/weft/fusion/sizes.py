"""Sizes that are not known when a graph is compiled: as data, and where to find them in a graph.

A size is a number, or an operation on sizes: `("FloorDiv", ("size", 0), 2)` is half of the first
size that a region is told when it runs.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias, cast

import sympy
import torch
from torch import Tensor, fx
from torch.fx.node import map_arg
from torch.fx.proxy import GraphAppendingTracer

from weft.core.errors import InputError

__all__ = [
    "Size",
    "at_hand",
    "evaluate",
    "hint",
    "is_size",
    "is_symbolic",
    "layout",
    "size_of",
    "sources",
    "symbols_of",
    "unknown",
]

aten = torch.ops.aten

Size: TypeAlias = "int | float | tuple[Any, ...]"

_OPERATIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "Add": operator.add,
        "Mul": operator.mul,
        "FloorDiv": operator.floordiv,
        "CleanDiv": operator.floordiv,
        "Mod": operator.mod,
        "PythonMod": operator.mod,
        "Max": torch.sym_max,
        "Min": torch.sym_min,
        "Pow": operator.pow,
        "PowByNatural": operator.pow,
        "FloatPow": operator.pow,
        "IntTrueDiv": operator.truediv,
        "FloatTrueDiv": operator.truediv,
        "ToFloat": torch.sym_float,
    }
)
"""What torch's expressions of sizes consist of. They work on numbers, symbols and nodes alike."""


def is_size(node: object) -> bool:
    """Whether a node of a graph is a number that follows from sizes."""
    return isinstance(node, fx.Node) and isinstance(
        node.meta.get("val"), torch.SymInt | torch.SymFloat
    )


def is_symbolic(tensor: Tensor) -> bool:
    """Whether a size or stride of a tensor is not known."""
    return any(not isinstance(n, int) for n in (*tensor.shape, *tensor.stride()))


def hint(value: Any) -> Any:  # noqa: ANN401 - whatever a node's argument may be
    """A size as it was when the graph was captured; other things as they are.

    Raises:
        InputError: it follows from values of tensors.
    """
    if not isinstance(value, torch.SymInt | torch.SymFloat):
        return value
    if not value.node.has_hint():
        raise InputError(
            need="sizes that follow from sizes of inputs",
            got=f"{value}, which follows from values",
            hint="leave it outside of the region",
        )
    return value.node.hint


def layout(tensor: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and strides of a tensor as they were when the graph was captured."""
    return tuple(map(hint, tensor.shape)), tuple(map(hint, tensor.stride()))


def symbols_of(value: object) -> set[sympy.Symbol]:
    """The unknowns of a size, or of a tensor's sizes and strides."""
    if isinstance(value, torch.SymInt | torch.SymFloat):
        return cast("set[sympy.Symbol]", value.node.expr.free_symbols)
    if isinstance(value, Tensor):
        return set().union(*map(symbols_of, (*value.shape, *value.stride())))
    return set()


def size_of(value: object, number_of: Callable[[sympy.Symbol], int]) -> Size:
    """A size as data.

    Args:
        value: a number, or one of torch's symbolic numbers.
        number_of: numbers the unknowns.

    Raises:
        InputError: it is made by an operation that is not known here.
    """
    if isinstance(value, torch.SymInt | torch.SymFloat):
        return _encoded(value.node.expr, number_of)
    assert isinstance(value, int | float)
    return value


def _encoded(expr: sympy.Basic, number_of: Callable[[sympy.Symbol], int]) -> Size:
    if isinstance(expr, sympy.Symbol):
        return ("size", number_of(expr))
    if isinstance(expr, sympy.Integer):
        return int(expr)
    if isinstance(expr, sympy.Float):
        return float(expr)
    name = type(expr).__name__
    if name not in _OPERATIONS or not expr.args:
        raise InputError(
            need=f"a size made by {', '.join(_OPERATIONS)}",
            got=str(expr),
            hint="leave it outside of the region",
        )
    return (name, *(_encoded(arg, number_of) for arg in expr.args))


def evaluate(size: Size, values: Sequence[Any]) -> Any:  # noqa: ANN401 - as the values are
    """A size, given the unknown ones: numbers, symbols or proxies of nodes.

    Example:
        >>> evaluate(("Add", ("FloorDiv", ("size", 0), 2), 1), [7])
        4
    """
    if not isinstance(size, tuple):
        return size
    name, *args = size
    if name == "size":
        return values[args[0]]
    operation = _OPERATIONS[name]
    found = [evaluate(arg, values) for arg in args]
    if len(found) == 1:
        return operation(found[0])
    result = found[0]
    for other in found[1:]:
        result = operation(result, other)
    return result


# --- in a graph ------------------------------------------------------------------------------


def unknown(graph: fx.Graph) -> dict[sympy.Symbol, tuple[fx.Node, int | None]]:
    """The unknown sizes of a graph's tensors: inputs that are they, or tensors and dims.

    Unknown numbers that are no tensor's size are left out: they may be another one at each call.
    """
    found: dict[sympy.Symbol, tuple[fx.Node, int | None]] = {}
    of_tensors: set[sympy.Symbol] = set()
    for node in graph.nodes:
        value = node.meta.get("val")
        if node.op != "placeholder" or not isinstance(value, torch.SymInt | Tensor):
            continue
        if isinstance(value, torch.SymInt):
            if isinstance(value.node.expr, sympy.Symbol):
                found[value.node.expr] = (node, None)
        elif is_symbolic(value):
            of_tensors |= symbols_of(value)
            for dim, size in enumerate(value.shape):
                if isinstance(size, torch.SymInt) and isinstance(size.node.expr, sympy.Symbol):
                    found.setdefault(size.node.expr, (node, dim))
    return {symbol: place for symbol, place in found.items() if symbol in of_tensors}


def sources(graph: fx.Graph) -> dict[sympy.Symbol, fx.Node]:
    """Nodes of a graph that are its unknown sizes, see `unknown`; added where there are none."""
    last = [node for node in graph.nodes if node.op == "placeholder"][-1:]
    found: dict[sympy.Symbol, fx.Node] = {}
    for symbol, (node, dim) in unknown(graph).items():
        found[symbol] = node
        if dim is not None:
            with graph.inserting_after(last[0]):
                found[symbol] = graph.call_function(aten.sym_size.int, (node, dim))
            found[symbol].meta["val"] = node.meta["val"].shape[dim]
    return found


def at_hand(graph: fx.Graph, known: Mapping[sympy.Symbol, fx.Node]) -> None:
    """Compute sizes of intermediate tensors from sizes of inputs.

    A region may then be replaced without regard to who asks for a size of something in it.

    Args:
        graph: to change.
        known: its unknown sizes, see `sources`.
    """
    numbers = {symbol: number for number, symbol in enumerate(known)}
    tracer = GraphAppendingTracer(graph)
    values = [fx.Proxy(node, tracer) for node in known.values()]
    asking = (aten.sym_size.int, aten.sym_stride.int, aten.sym_numel.default)
    for node in list(graph.nodes):
        if node.target not in asking or not is_size(node) or node in known.values():
            continue
        try:
            size = size_of(node.meta["val"], numbers.__getitem__)
        except (InputError, KeyError):
            continue
        before = set(graph.nodes)
        with graph.inserting_before(node):
            made = evaluate(size, values)
        for new in graph.nodes:
            if new not in before:
                new.meta["val"] = _run(new)
        node.replace_all_uses_with(made.node if isinstance(made, fx.Proxy) else made)
        graph.erase_node(node)


def _run(node: fx.Node) -> object:
    assert callable(node.target)
    return node.target(*map_arg(node.args, lambda source: source.meta["val"]))
