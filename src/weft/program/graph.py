"""The tensor program: one training step on one device, as plain frozen data.

A program is a tuple of nodes in execution order. A node applies one operator to values of
earlier nodes and to constants, and has one or more outputs; `Value(node, output)` names one
of them. Inputs are nodes too (operator "input"). A training step reads parameters, buffers
and optimizer state, and returns the loss and the next value of whatever it changes.

Operators carry the names of ATen overloads ("mul.Tensor") with their arguments in schema
order, so that running one needs no translation table, except the few that have no single
ATen counterpart: see `weft.program.operators`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import TypeAlias

from weft.core.digest import digest
from weft.core.errors import InputError
from weft.program.annotation import Annotation
from weft.program.types import TensorType

__all__ = [
    "Arg",
    "Input",
    "Node",
    "Phase",
    "Program",
    "Role",
    "Value",
    "compact",
    "map_values",
    "require_input",
    "used_nodes",
    "values_in",
]


@dataclass(frozen=True, slots=True, order=True)
class Value:
    """Output `output` of node number `node`."""

    node: int
    output: int = 0

    def __str__(self) -> str:
        return f"%{self.node}" if self.output == 0 else f"%{self.node}.{self.output}"


Arg: TypeAlias = "Value | int | float | bool | str | tuple[Arg, ...] | None"
"""An argument: a value, a constant, or a tuple of arguments. Element types are strings."""


class Phase(Enum):
    """Which part of the step a node belongs to."""

    FORWARD = "forward"
    BACKWARD = "backward"
    UPDATE = "update"

    # Members are singletons; Enum hashes by name, in Python, and phases are in many keys.
    __hash__ = object.__hash__


class Role(Enum):
    """What an input is to the step."""

    PARAMETER = "parameter"
    BUFFER = "buffer"
    STATE = "state"
    """Optimizer state: moments, step counters."""
    BATCH = "batch"
    SEED = "seed"
    """The scalar that dropout masks are made from; a new one each step."""
    MICRO_BATCH = "micro-batch"
    """The number of the micro-batch, a scalar from 0."""
    RECEIVED = "received"
    """What another pipeline stage sends for each micro-batch."""
    SHARED = "shared"
    """What another pipeline stage sends once a step."""

    @property
    def is_persistent(self) -> bool:
        """True if the tensor lives from step to step on the device."""
        return self in (Role.PARAMETER, Role.BUFFER, Role.STATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operator application.

    Attributes:
        op: operator name.
        args: arguments in schema order; trailing defaults may be left out.
        outputs: type of each output.
        phase: forward, backward or update.
        scope: module path that the operator came from, such as "layers.3.attention".
        source: the user's own line, "file.py:12", where known.
        pins: what the model's code asks of the first output, of forward nodes only.
    """

    op: str
    args: tuple[Arg, ...]
    outputs: tuple[TensorType, ...]
    phase: Phase = Phase.FORWARD
    scope: str = ""
    source: str = ""
    pins: tuple[Annotation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """An input of the step: its name, its role and the node that stands for it.

    `parameter` names the parameter that an optimizer state belongs to, else it is empty.
    `shape` is the shape by which the model knows the tensor, where the program holds it with a
    dim in factors (`weft.program.factors`); None where the node's own is the model's.
    """

    name: str
    role: Role
    node: int
    parameter: str = ""
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Program:
    """One training step on one device.

    Attributes:
        name: what people call it.
        nodes: operators in execution order; arguments refer to earlier nodes only.
        inputs: what the step reads, in the order in which it is given.
        loss: the scalar that was differentiated.
        updates: for each input that the step changes, its node number and its next value.
    """

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[Input, ...]
    loss: Value
    updates: tuple[tuple[int, Value], ...] = ()

    def type_of(self, value: Value) -> TensorType:
        """Type of a value."""
        return self.nodes[value.node].outputs[value.output]

    def model_type(self, source: Input) -> TensorType:
        """Type by which the model knows an input; its node's, unless that holds it in factors."""
        held = self.nodes[source.node].outputs[0]
        return held if source.shape is None else replace(held, shape=source.shape)

    def operands(self, node: int) -> tuple[Value, ...]:
        """Values that a node reads, in argument order, repeats included."""
        return self._operands[node]

    @cached_property
    def _operands(self) -> tuple[tuple[Value, ...], ...]:
        return tuple(tuple(values_in(node.args)) for node in self.nodes)

    @cached_property
    def users(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """For each node, its readers as (reader, position among the reader's operands)."""
        users: list[list[tuple[int, int]]] = [[] for _ in self.nodes]
        for reader in range(len(self.nodes)):
            for position, value in enumerate(self.operands(reader)):
                users[value.node].append((reader, position))
        return tuple(tuple(u) for u in users)

    @cached_property
    def input_by_name(self) -> dict[str, Input]:
        """Inputs by name."""
        return {i.name: i for i in self.inputs}

    @cached_property
    def input_by_node(self) -> dict[int, Input]:
        """Inputs by node number."""
        return {i.node: i for i in self.inputs}

    @cached_property
    def kinds(self) -> tuple[int, ...]:
        """For each node a number: equal for nodes of equal operator, constants and types."""
        types: dict[TensorType, int] = {}
        numbers: dict[object, int] = {}
        made: list[tuple[int, ...]] = []
        kinds: list[int] = []
        for node, operands in zip(self.nodes, self._operands, strict=True):
            outputs = tuple([types.setdefault(t, len(types)) for t in node.outputs])
            reads = tuple([made[value.node][value.output] for value in operands])
            key = (node.op, _pattern(node.args), reads, outputs)
            kinds.append(numbers.setdefault(key, len(numbers)))
            made.append(outputs)
        return tuple(kinds)

    @cached_property
    def digest(self) -> str:
        """Content digest: equal exactly for programs that compute the same by the same nodes.

        Names of the program, scopes and source lines do not take part. Pins do: a plan keeps
        those of the program that it was made for.
        """
        nodes = [[n.op, _plain(n.args), [str(t) for t in n.outputs]] for n in self.nodes]
        inputs = [
            [i.name, i.role.value, i.node, *([] if i.shape is None else [list(i.shape)])]
            for i in self.inputs
        ]
        updates = [[node, str(value)] for node, value in self.updates]
        pins = [[n, [str(p.wish) for p in x.pins]] for n, x in enumerate(self.nodes) if x.pins]
        return digest([nodes, inputs, str(self.loss), updates, *([pins] if pins else [])])

    @cached_property
    def num_parameters(self) -> int:
        """Trainable elements."""
        return sum(
            self.nodes[i.node].outputs[0].num_elements
            for i in self.inputs
            if i.role is Role.PARAMETER
        )


def values_in(args: tuple[Arg, ...]) -> Iterator[Value]:
    """Values among arguments, depth first, in order."""
    for arg in args:
        if isinstance(arg, Value):
            yield arg
        elif isinstance(arg, tuple):
            yield from values_in(arg)


def map_values(args: tuple[Arg, ...], change: Callable[[Value], Arg]) -> tuple[Arg, ...]:
    """The same arguments with every value replaced by `change(value)`."""
    return tuple(
        change(arg)
        if isinstance(arg, Value)
        else map_values(arg, change)
        if isinstance(arg, tuple)
        else arg
        for arg in args
    )


def _pattern(args: tuple[Arg, ...]) -> tuple[object, ...]:
    """Arguments as a key, values without identity; 1, 1.0 and True are three constants."""
    return tuple(
        [
            Value
            if isinstance(arg, Value)
            else _pattern(arg)
            if isinstance(arg, tuple)
            else (type(arg), arg)
            for arg in args
        ]
    )


def _plain(args: tuple[Arg, ...]) -> list[object]:
    return [_plain(arg) if isinstance(arg, tuple) else _plain_one(arg) for arg in args]


def _plain_one(arg: Arg) -> object:
    # JSON has no infinity, which masks are filled with.
    foreign = isinstance(arg, Value) or (isinstance(arg, float) and not math.isfinite(arg))
    return str(arg) if foreign else arg


def used_nodes(program: Program) -> list[bool]:
    """For each node, whether the loss, an update or what is sent depends on it; inputs count."""
    keep = [False] * len(program.nodes)
    stack = [program.loss.node, *(value.node for _, value in program.updates)]
    stack += [i.node for i in program.inputs]
    stack += [number for number, node in enumerate(program.nodes) if node.op == "send"]
    while stack:
        node = stack.pop()
        if not keep[node]:
            keep[node] = True
            stack.extend(value.node for value in program.operands(node))
    return keep


def compact(program: Program) -> Program:
    """The program without nodes that nothing reads, renumbered.

    Inputs stay even if unread. The order of nodes does not change.
    """
    keep = used_nodes(program)
    number = {old: new for new, old in enumerate(n for n, kept in enumerate(keep) if kept)}

    def moved(value: Value) -> Value:
        return Value(number[value.node], value.output)

    return replace(
        program,
        nodes=tuple(
            replace(node, args=map_values(node.args, moved))
            for n, node in enumerate(program.nodes)
            if keep[n]
        ),
        inputs=tuple(replace(i, node=number[i.node]) for i in program.inputs),
        loss=moved(program.loss),
        updates=tuple((number[node], moved(value)) for node, value in program.updates),
    )


def require_input(program: Program, name: str) -> Input:
    """The input of that name.

    Raises:
        InputError: there is none; the error lists those that resemble it.
    """
    found = program.input_by_name.get(name)
    if found is None:
        near = [i.name for i in program.inputs if name.split(".")[-1] in i.name][:5]
        raise InputError(
            need=f"the name of an input of {program.name}",
            got=repr(name),
            hint=f"did you mean {', '.join(near)}" if near else "see `weft capture --text`",
        )
    return found
