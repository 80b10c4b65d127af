"""Runs stage programs on NumPy arrays: all parts of the batch at once, node by node.

The definition of what a pipeline computes, without schedules and devices: `accumulate` sums over
the parts, what one stage sends the next one receives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weft.parallel.pipeline.microbatch import MICRO_BATCH
from weft.parallel.pipeline.stages import StageProgram
from weft.program.evaluate.run import apply_operator
from weft.program.graph import Arg, Role, Value

TAKEN_UP = (Role.RECEIVED, Role.SHARED)

Parts = list[NDArray[Any]]


def run_stages(
    stages: Sequence[StageProgram], count: int, inputs: Mapping[str, NDArray[Any]]
) -> tuple[float, dict[str, NDArray[Any]]]:
    """The loss and the next values of one step."""
    sent: dict[str, Parts] = {}
    running = [_Stage(stage, count, inputs, sent) for stage in stages]
    while any(not stage.done for stage in running):
        moved = [stage.advance() for stage in running]
        assert any(moved), "every stage waits for another"
    loss = sum(float(stage.value(stage.program.loss)[0]) for stage in running)
    updates: dict[str, NDArray[Any]] = {}
    for stage in running:
        for old, new in stage.program.updates:
            updates[stage.program.input_by_node[old].name] = stage.value(new)[0]
    return loss, updates


class _Stage:
    def __init__(
        self,
        stage: StageProgram,
        count: int,
        inputs: Mapping[str, NDArray[Any]],
        sent: dict[str, Parts],
    ) -> None:
        self.program = stage.program
        self._count = count
        self._inputs = inputs
        self._sent = sent
        self._values: list[list[tuple[NDArray[Any], ...]]] = []

    @property
    def done(self) -> bool:
        return len(self._values) == len(self.program.nodes)

    def value(self, value: Value) -> Parts:
        return [part[value.output] for part in self._values[value.node]]

    def advance(self) -> bool:
        """Run nodes until one has to wait; whether any ran."""
        before = len(self._values)
        while not self.done and self._can_run():
            self._values.append(self._run())
        return len(self._values) > before

    def _can_run(self) -> bool:
        given = self.program.input_by_node.get(len(self._values))
        return given is None or given.role not in TAKEN_UP or given.name in self._sent

    def _run(self) -> list[tuple[NDArray[Any], ...]]:
        number = len(self._values)
        node, given = self.program.nodes[number], self.program.input_by_node.get(number)
        parts = range(self._count)
        if given is not None and given.role in TAKEN_UP:
            return [(array,) for array in self._sent[given.name]]
        if given is not None and given.name == MICRO_BATCH:
            return [(np.asarray(part),) for part in parts]
        if given is not None and given.role is Role.BATCH and node.outputs[0].shape:
            return [(part,) for part in np.split(self._inputs[given.name], self._count)]
        if given is not None:
            return [(self._inputs[given.name],)] * self._count
        made = [self._apply(number, part) for part in parts]
        if node.op == "accumulate":
            total = np.sum([m[0] for m in made], axis=0)
            return [(total,)] * self._count
        if node.op == "send":
            assert isinstance(node.args[1], str)
            self._sent[node.args[1]] = [m[0] for m in made]
        return made

    def _apply(self, number: int, part: int) -> tuple[NDArray[Any], ...]:
        def filled(arg: Arg) -> Any:
            if isinstance(arg, Value):
                return self._values[arg.node][part][arg.output]
            return tuple(map(filled, arg)) if isinstance(arg, tuple) else arg

        node = self.program.nodes[number]
        return apply_operator(node.op, tuple(map(filled, node.args)), node.outputs)
