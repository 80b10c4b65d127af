"""Time of a program's nodes on devices, by the rows of the batch that a device has.

Where the batch is cut a node works on local tensors: a dim that is cut has its size times the
share of the rows. Nodes of one kind that follow one rule are priced once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from weft.cost.fusion import program_traffic
from weft.cost.roofline import operator_seconds
from weft.machine.model import Device
from weft.parallel.mcts.carrying import rows_of
from weft.parallel.placement import Placement
from weft.parallel.rules import Rule
from weft.parallel.spmd import localized
from weft.program.graph import Program, Value, map_values
from weft.program.types import TensorType

__all__ = ["Pricing", "measured_rows"]

Floats = NDArray[np.float64]


def measured_rows(rows: int) -> tuple[int, ...]:
    """Numbers of rows at which nodes are priced: all, half, a quarter, ... and 1; ascending.

    Example:
        >>> measured_rows(12)
        (1, 3, 6, 12)
    """
    return tuple(sorted({1, *(rows >> k for k in range(rows.bit_length()) if rows >> k)}))


class Pricing:
    """Prices nodes of one program that follow the given rules."""

    def __init__(
        self, program: Program, rules: tuple[Rule, ...], devices: Sequence[Device]
    ) -> None:
        self._program = program
        self._rules = rules
        self._devices = devices
        self._paid = program_traffic(program)
        self.rows = rows_of(program)
        self.points = measured_rows(self.rows)
        self._known: dict[object, Floats] = {}

    def seconds(self, node: int) -> Floats:
        """Time of a node [device, point of `points`]; no writing to it [s]."""
        key = (self._program.kinds[node], self._rules[node], self._paid[node])
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = np.asarray(
                [
                    [self._price(node, rows, device) for rows in self.points]
                    for device in self._devices
                ]
            )
        return found

    def row_bytes(self, value: Value) -> float:
        """Bytes of a row of a value that carries rows, 0 of another [bytes]."""
        carries = self._rules[value.node].outputs[value.output] >= 0
        return self._program.type_of(value).num_bytes / self.rows if carries else 0.0

    def whole_bytes(self, value: Value) -> float:
        """Bytes of a value that carries no rows, 0 of another [bytes]."""
        carries = self._rules[value.node].outputs[value.output] >= 0
        return 0.0 if carries else float(self._program.type_of(value).num_bytes)

    def table(self, nodes: Sequence[int]) -> Floats:
        """Time of some nodes together [device, rows from 0 to all]; 0 for no rows [s]."""
        total = np.zeros((len(self._devices), len(self.points)))
        for node in nodes:
            total += self.seconds(node)
        return between(self.points, total, self.rows)

    def _price(self, number: int, rows: int, device: Device) -> float:
        node, rule = self._program.nodes[number], self._rules[number]
        operands = tuple(
            self._local(self._program.type_of(value), place, rows)
            for value, place in zip(self._program.operands(number), rule.operands, strict=True)
        )
        outputs = tuple(
            self._local(full, place, rows)
            for full, place in zip(node.outputs, rule.outputs, strict=True)
        )
        # Local arguments name local operands by their position.
        positions: Iterator[int] = iter(range(len(operands)))
        args = map_values(node.args, lambda _: Value(next(positions)))
        shapes = tuple(tensor.shape for tensor in outputs)
        args = localized(node.op, args, shapes, lambda value: operands[value.node].shape)
        return operator_seconds(node.op, args, operands, outputs, device, self._paid[number])

    def _local(self, full: TensorType, place: Placement, rows: int) -> TensorType:
        if place < 0:
            return full
        shape = list(full.shape)
        shape[place] = max(1, shape[place] * rows // self.rows)
        return TensorType(full.dtype, tuple(shape))


def between(points: Sequence[int], seconds: Floats, rows: int) -> Floats:
    """Times for every number of rows from 0, on straight lines between those that are known.

    Args:
        points: numbers of rows, ascending.
        seconds: time at each of them [..., point].
        rows: most rows.
    """
    wanted = np.arange(rows + 1)
    flat = seconds.reshape(-1, len(points))
    lines = np.asarray([np.interp(wanted, points, line) for line in flat])
    lines[:, 0] = 0.0
    return lines.reshape(*seconds.shape[:-1], rows + 1)
