"""Strategies of one node on a mesh: rules of each axis, multiplied and filtered.

A strategy takes one rule for each mesh axis. It is kept if every cut dim of every output and
operand is a multiple of the devices that cut it. Nodes of equal operator, constants and types
share their strategies and costs, so a deep model costs no more than a shallow one.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from weft.cost.fusion import Paid, program_traffic
from weft.cost.roofline import operator_seconds
from weft.machine.model import Device
from weft.parallel.estimate import DeviceClass
from weft.parallel.placement import Mesh, Sharding, divides, is_partial, local_type
from weft.parallel.plan import Strategy
from weft.parallel.reshard import Floats
from weft.parallel.rules import Rule, RuleBook
from weft.program.graph import Program, Value
from weft.program.operators import Kind, operator
from weft.program.types import TensorType

__all__ = ["Choices", "StrategyTable", "localize"]


@dataclass(frozen=True)
class Choices:
    """Strategies of a node and the time that each takes on one device [s]."""

    strategies: tuple[Strategy, ...]
    seconds: Floats


class StrategyTable:
    """Makes and keeps the strategies of a program's nodes on one mesh of one device type.

    Args:
        program: whose nodes.
        mesh, device: where it runs.
        traffic: what each node pays for, if the caller knows it.
        book: the program's rules, if the caller has them.
        outer: for some nodes, the only rule that they may follow on the first axis.
        settled: values that nobody may read before they are reduced.
        classes: of unlike devices one of each; an operator takes as long as the last of them.
    """

    def __init__(
        self,
        program: Program,
        mesh: Mesh,
        device: Device,
        traffic: Sequence[Paid] | None = None,
        book: RuleBook | None = None,
        outer: Mapping[int, Rule] | None = None,
        settled: Set[Value] = frozenset(),
        classes: Sequence[DeviceClass] = (),
    ) -> None:
        self._classes = classes or (DeviceClass(coordinate=mesh.largest, device=device),)
        self._program = program
        self._mesh = mesh
        self._paid = program_traffic(program) if traffic is None else traffic
        self._book = book or RuleBook(program)
        self._outer = outer or {}
        self._settled = settled
        self._known: dict[object, Choices] = {}

    def choices(self, node: int) -> Choices:
        """All legal strategies of a node, with costs.

        Raises:
            RuleError: no rule covers the operator; carries the node's scope and source line.
        """
        key = (
            self._program.kinds[node],
            self._paid[node],
            self._outer.get(node),
            self._settled_operands(node),
            self._lasts(node),
        )
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._build(node)
        return found

    def _lasts(self, node: int) -> bool:
        source = self._program.input_by_node.get(node)
        return source is not None and source.role.is_persistent

    def _settled_operands(self, node: int) -> tuple[int, ...]:
        """Positions of operands that have to be reduced."""
        if not self._settled:
            return ()
        operands = enumerate(self._program.operands(node))
        return tuple(position for position, value in operands if value in self._settled)

    def _build(self, node: int) -> Choices:
        this = self._program.nodes[node]
        operands = tuple(map(self._program.type_of, self._program.operands(node)))
        if operator(this.op).kind is Kind.INPUT:
            outer = self._outer.get(node)
            return _placements_of(self._mesh, this.outputs[0], outer, lasts=self._lasts(node))
        settled = self._settled_operands(node)
        strategies: dict[Strategy, None] = {}
        rules, outer = self._book.rules(node), self._outer.get(node)
        by_axis = [rules] * self._mesh.num_axes
        if outer is not None:
            by_axis[0] = (outer,)
        for combination in itertools.product(*by_axis):
            strategy = Strategy(
                outputs=tuple(zip(*(rule.outputs for rule in combination), strict=True)),
                operands=tuple(zip(*(rule.operands for rule in combination), strict=True)),
            )
            pending = any(is_partial(p) for k in settled for p in strategy.operands[k])
            if not pending and fits(self._mesh, strategy, operands, this.outputs):
                strategies[strategy] = None
        seconds = [self._seconds(node, strategy, operands) for strategy in strategies]
        return Choices(tuple(strategies), np.array(seconds))

    def _seconds(self, node: int, strategy: Strategy, operands: tuple[TensorType, ...]) -> float:
        this, paid = self._program.nodes[node], self._paid[node]

        def taken_s(one: DeviceClass) -> float:
            reads, writes = localize(self._mesh, strategy, operands, this.outputs, one.coordinate)
            return operator_seconds(this.op, this.args, reads, writes, one.device, paid)

        return max(map(taken_s, self._classes))


def fits(
    mesh: Mesh,
    strategy: Strategy,
    operands: tuple[TensorType, ...],
    outputs: tuple[TensorType, ...],
) -> bool:
    """True if every cut dim of a strategy divides."""
    pairs = itertools.chain(
        zip(strategy.outputs, outputs, strict=True), zip(strategy.operands, operands, strict=True)
    )
    return all(divides(mesh, sharding, tensor.shape) for sharding, tensor in pairs)


def localize(
    mesh: Mesh,
    strategy: Strategy,
    operands: tuple[TensorType, ...],
    outputs: tuple[TensorType, ...],
    coordinate: tuple[int, ...] | None = None,
) -> tuple[tuple[TensorType, ...], tuple[TensorType, ...]]:
    """Local types of operands and outputs under a strategy; see `local_type` for the place."""

    def local(sharding: Sharding, tensor: TensorType) -> TensorType:
        return local_type(mesh, sharding, tensor, coordinate)

    return (
        tuple(map(local, strategy.operands, operands)),
        tuple(map(local, strategy.outputs, outputs)),
    )


def _placements_of(mesh: Mesh, tensor: TensorType, outer: Rule | None, *, lasts: bool) -> Choices:
    """An input may lie in any sharding without pending reductions, at no cost.

    One that lasts is whole along axes that cut unevenly.
    """
    dims = (-1, *(d for d, size in enumerate(tensor.shape) if size > 1))
    shardings: list[Sharding] = [
        sharding
        for sharding in itertools.product(dims, repeat=mesh.num_axes)
        if divides(mesh, sharding, tensor.shape)
        and not (lasts and any(p >= 0 and not mesh.cuts_evenly(a) for a, p in enumerate(sharding)))
        and (outer is None or sharding[0] == outer.outputs[0])
    ]
    return Choices(tuple(Strategy((s,), ()) for s in shardings), np.zeros(len(shardings)))
