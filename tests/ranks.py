"""All ranks of a local program in one process, on NumPy arrays: the oracle for the lowering.

Knows what each instruction promises and nothing of torch. Slower than the runtime and simpler.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tests.property.rule_devices import causal_rows, collect, distribute, offsets
from weft.parallel.local import Collective, CollectiveKind, LocalProgram, Run
from weft.parallel.plan import ParallelPlan
from weft.parallel.recompute import with_recompute
from weft.parallel.spmd import lower
from weft.program.evaluate import apply_operator
from weft.program.graph import Program, Value
from weft.program.random import row_major_strides, uniform

Array = NDArray[np.generic]
Parts = dict[tuple[int, ...], Array]


def run_plan(
    program: Program, plan: ParallelPlan, inputs: Mapping[str, Array]
) -> tuple[float, dict[str, Array]]:
    """Loss and next values of a step executed by all ranks of a plan."""
    local = lower(program, plan)
    ranks = Ranks(with_recompute(program, plan.recompute), local, inputs)
    for instruction in local.instructions:
        if isinstance(instruction, Run):
            ranks.apply(instruction)
        else:
            ranks.communicate(instruction)
    shape = local.mesh.shape
    sharding = {i.name: i.sharding for i in local.inputs}
    whole = (-1,) * len(shape)
    updates = {
        name: collect(ranks.slots[slot], sharding[name], shape) for name, slot in local.updates
    }
    return float(collect(ranks.slots[local.loss], whole, shape)), updates


class Ranks:
    """The slots of every rank; `names` says which inputs are put into them, all if absent."""

    def __init__(
        self,
        program: Program,
        local: LocalProgram,
        inputs: Mapping[str, Array],
        names: frozenset[str] | None = None,
    ) -> None:
        self.program = program
        self.local = local
        self.shape = local.mesh.shape
        self.devices = list(itertools.product(*map(range, self.shape)))
        self.slots: dict[int, Parts] = {}
        rng = np.random.default_rng(0)
        for given in local.inputs:
            if names is not None and given.name not in names:
                continue
            self._put(given.slot, distribute(inputs[given.name], given.sharding, self.shape, rng))

    def _put(self, slot: int, parts: Parts) -> None:
        for part in parts.values():
            assert part.shape == self.local.slots[slot].shape, (part.shape, self.local.slots[slot])
        assert slot not in self.slots, "each slot is written once"
        self.slots[slot] = parts

    def apply(self, run: Run) -> None:
        made: list[Parts] = [{} for _ in run.outputs]
        for device in self.devices:
            for output, array in enumerate(self._on(device, run)):
                made[output][device] = array
        for slot, parts in zip(run.outputs, made, strict=True):
            self._put(slot, parts)

    def _on(self, device: tuple[int, ...], run: Run) -> tuple[Array, ...]:
        args = self._filled(run.args, device)
        full = self.program.nodes[run.node].outputs[0].shape
        start = offsets(run.strategy.outputs[0], self.shape, device, full)
        outputs = tuple(self.local.slots[slot] for slot in run.outputs)
        match run.op:
            case "uniform":
                strides = row_major_strides(full)
                return (uniform(int(args[0]), args[1], args[2], start, strides),)
            case "iota":
                args = (args[0], args[1] + start[0] * args[2], *args[2:])
            case "attention" | "attention_backward" if args[-2]:
                return self._causal(run, args, device)
            case "embedding.default":
                return self._lookup(run, args, device, outputs)
            case "embedding_dense_backward.default":
                grad, ids, rows, padding = args[:4]
                mine = (ids >= start[0]) & (ids < start[0] + rows) & (ids != padding)
                grad, ids = np.where(mine[..., None], grad, 0.0), np.where(mine, ids - start[0], 0)
                args = (grad, ids, rows, -1, *args[4:])
        return apply_operator(run.op, args, outputs)

    def _causal(self, run: Run, args: tuple, device: tuple[int, ...]) -> tuple:
        at = 0 if run.op == "attention" else 1
        full = self.program.type_of(self.program.operands(run.node)[at]).shape
        first = offsets(run.strategy.operands[at], self.shape, device, full)[2]
        values = tuple(Value(n) for n in range(len(args) - 2))
        return causal_rows(run.op, (*values, *args[-2:]), args[:-2], first, full[2])

    def _filled(self, args: tuple, device: tuple[int, ...]) -> tuple:
        return tuple(
            self.slots[arg.node][device]
            if isinstance(arg, Value)
            else self._filled(arg, device)
            if isinstance(arg, tuple)
            else arg
            for arg in args
        )

    def _lookup(self, run: Run, args: tuple, device: tuple[int, ...], outputs: tuple) -> tuple:
        table, ids = args[:2]
        full = self.program.type_of(self.program.operands(run.node)[0]).shape
        first = offsets(run.strategy.operands[0], self.shape, device, full)[0]
        mine = (ids >= first) & (ids < first + len(table))
        shifted = np.where(mine, ids - first, 0)
        (out,) = apply_operator(run.op, (table, shifted, *args[2:]), outputs)
        return (np.where(mine[..., None], out, 0.0),)

    def communicate(self, step: Collective) -> None:
        source, target = self.slots[step.source], {}
        for device in self.devices:
            line = [
                source[(*device[: step.axis], other, *device[step.axis + 1 :])]
                for other in range(self.shape[step.axis])
            ]
            target[device] = self._result(step, line, device[step.axis])
        self._put(step.target, target)

    def _result(self, step: Collective, line: list[Array], position: int) -> Array:
        size = len(line)
        reduce = np.maximum.reduce if step.reduce == "max" else sum

        def own(array: Array) -> Array:
            return np.split(array, size, axis=step.target_dim)[position]

        match step.kind:
            case CollectiveKind.ALL_REDUCE:
                return reduce(line)
            case CollectiveKind.REDUCE_SCATTER:
                return own(reduce(line))
            case CollectiveKind.ALL_GATHER:
                return np.concatenate(line, axis=step.source_dim)
            case CollectiveKind.ALL_TO_ALL:
                return own(np.concatenate(line, axis=step.source_dim))
            case CollectiveKind.SLICE:
                return own(line[position])
