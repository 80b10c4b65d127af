"""A region whose sizes are not known: its operators, with sizes as data.

A recipe is kept in the cache folder, where another process finds it that runs a graph which was
compiled before.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import sympy
import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.fx.proxy import GraphAppendingTracer

from weft.core.digest import digest
from weft.core.errors import InputError
from weft.core.files import parsed
from weft.fusion.sizes import Size, evaluate, is_size, size_of

__all__ = ["Made", "Recipe", "Step", "graph_of", "recipe_of"]

VERSION = 1

Plain: TypeAlias = Any
"""What JSON holds, with tuples for lists; `{"node": 3}`, `{"size": ...}`, `{"torch": "float32"}`
and `{"device": "cpu"}` stand for what it does not."""

_NAMED = (torch.dtype, torch.layout, torch.memory_format)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A call of an operator.

    Attributes:
        target: its name, such as "aten::add.Tensor"; "getitem" takes one of several results.
        args: arguments in order.
        kwargs: arguments by name.
    """

    target: str
    args: tuple[Plain, ...]
    kwargs: Plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An output.

    Attributes:
        node: which result it is: those of steps are numbered after the inputs.
        dtype: torch's name of the element type.
        shape, strides: in elements.
    """

    node: int
    dtype: str
    shape: tuple[Size, ...]
    strides: tuple[Size, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Operators of a region.

    Attributes:
        inputs: number of tensors that it takes.
        sizes: number of sizes that it is told.
        steps: in order.
        outputs: tensors that it makes.
        threads: that share out the work.
        strict: whether it is an error if it cannot be compiled for some sizes.
    """

    inputs: int
    sizes: int
    steps: tuple[Step, ...]
    outputs: tuple[Made, ...]
    threads: int
    strict: bool

    @property
    def digest(self) -> str:
        """Equal for recipes that are alike."""
        return digest(self.to_json())

    def to_json(self) -> str:
        """The recipe as one line of JSON."""
        return json.dumps({"weft": "recipe", "version": VERSION, **asdict(self)})

    @staticmethod
    def from_json(text: str) -> Recipe:
        """Inverse of `to_json`.

        Raises:
            InputError: the text is no recipe of this version.
        """
        hint = "delete the file, and Inductor's cache with it"
        return parsed(text, "recipe", VERSION, _recipe, hint=hint, error=InputError)


def _recipe(plain: dict[str, Any]) -> Recipe:
    steps = tuple(Step(**{k: _tuples(v) for k, v in s.items()}) for s in plain.pop("steps"))
    outputs = tuple(
        Made(**{k: _tuples(v) for k, v in made.items()}) for made in plain.pop("outputs")
    )
    return Recipe(steps=steps, outputs=outputs, **plain)


def _tuples(plain: Plain) -> Plain:
    if isinstance(plain, list):
        return tuple(map(_tuples, plain))
    if isinstance(plain, dict):
        return {key: _tuples(value) for key, value in plain.items()}
    return plain


def recipe_of(
    nodes: Sequence[fx.Node],
    inputs: Sequence[fx.Node],
    outputs: Sequence[fx.Node],
    *,
    threads: int,
    strict: bool,
) -> tuple[Recipe, tuple[sympy.Symbol, ...]]:
    """The recipe of some nodes of a graph.

    Args:
        nodes: what is to be computed, in order.
        inputs: tensors that these read.
        outputs: those whose results others read.
        threads: that share out the work.
        strict: whether it is an error if it cannot be compiled for some sizes.

    Returns:
        The recipe, and which sizes it wants to be told.

    Raises:
        InputError: an argument or a size has no form in a recipe.
    """
    writer = _Writer({node: number for number, node in enumerate((*inputs, *nodes))})
    steps = tuple(
        Step(
            target=_name(node.target),
            args=writer.plain(node.args),
            kwargs={name: writer.plain(value) for name, value in node.kwargs.items()},
        )
        for node in nodes
    )
    made = tuple(writer.made(node) for node in outputs)
    for node in inputs:  # so that the sizes that it is told say how the inputs lie
        writer.layout(node.meta["val"])
    recipe = Recipe(
        inputs=len(inputs),
        sizes=len(writer.symbols),
        steps=steps,
        outputs=made,
        threads=threads,
        strict=strict,
    )
    return recipe, tuple(writer.symbols)


class _Writer:
    def __init__(self, number: dict[fx.Node, int]) -> None:
        self._number = number
        self.symbols: dict[sympy.Symbol, int] = {}

    def _size(self, value: object) -> Size:
        return size_of(value, lambda symbol: self.symbols.setdefault(symbol, len(self.symbols)))

    def layout(self, tensor: Tensor) -> tuple[tuple[Size, ...], tuple[Size, ...]]:
        return tuple(map(self._size, tensor.shape)), tuple(map(self._size, tensor.stride()))

    def made(self, node: fx.Node) -> Made:
        tensor = node.meta["val"]
        shape, strides = self.layout(tensor)
        return Made(
            node=self._number[node], dtype=_torch_name(tensor.dtype), shape=shape, strides=strides
        )

    def plain(self, value: Any) -> Plain:  # noqa: ANN401 - whatever a node's argument may be
        if is_size(value):
            value = value.meta["val"]
        if isinstance(value, torch.SymInt | torch.SymFloat):
            return {"size": self._size(value)}
        if isinstance(value, fx.Node):
            return {"node": self._number[value]}
        if isinstance(value, list | tuple):
            return tuple(map(self.plain, value))
        if isinstance(value, _NAMED):
            return {"torch": _torch_name(value)}
        if isinstance(value, torch.device):
            return {"device": str(value)}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise InputError(
            need="arguments that are tensors, numbers, sizes or types",
            got=f"{value!r}",
            hint="leave it outside of the region",
        )


def _torch_name(value: object) -> str:
    return str(value).removeprefix("torch.")


def _name(target: object) -> str:
    return target.name() if isinstance(target, OpOverload) else "getitem"


def graph_of(recipe: Recipe, sizes: Sequence[int] | None = None) -> fx.Graph:
    """The recipe as a graph of its tensors, and of its sizes too if they are not given.

    Args:
        recipe: the operators.
        sizes: what the graph is for.
    """
    graph = fx.Graph()
    made = [graph.placeholder(f"in{number}") for number in range(recipe.inputs)]
    values: Sequence[Any] = sizes if sizes is not None else _placeholders(graph, recipe.sizes)
    for step in recipe.steps:
        args = _filled(step.args, made, values)
        kwargs = {name: _filled(value, made, values) for name, value in step.kwargs.items()}
        made.append(graph.call_function(_target(step.target), args, kwargs))
    graph.output(tuple(made[output.node] for output in recipe.outputs))
    return graph


def _placeholders(graph: fx.Graph, count: int) -> list[fx.Proxy]:
    tracer = GraphAppendingTracer(graph)
    return [fx.Proxy(graph.placeholder(f"size{number}"), tracer) for number in range(count)]


def _target(name: str) -> Callable[..., Any]:
    if name == "getitem":
        return operator.getitem
    namespace, _, rest = name.partition("::")
    packet, _, overload = rest.partition(".")
    return getattr(getattr(getattr(torch.ops, namespace), packet), overload or "default")


def _filled(plain: Plain, made: Sequence[fx.Node], values: Sequence[Any]) -> Any:  # noqa: ANN401
    if isinstance(plain, tuple):
        return tuple(_filled(one, made, values) for one in plain)
    if not isinstance(plain, dict):
        return plain
    ((kind, value),) = plain.items()
    if kind == "node":
        return made[value]
    if kind == "torch":
        return getattr(torch, value)
    if kind == "device":
        return torch.device(value)
    found = evaluate(value, values)
    return found.node if isinstance(found, fx.Proxy) else found
