"""Runs all ranks of all stages of a pipeline on NumPy arrays, part by part.

Micro-batch after micro-batch goes forward through all stages and then backward: what a schedule
may not change. Parts that run once run once, so what they make has to last.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tests.property.rule_devices import collect, distribute
from tests.ranks import Array, Parts, Ranks
from weft.parallel.local import Run
from weft.parallel.pipeline.microbatch import MICRO_BATCH
from weft.parallel.pipeline.plan import PipelinePlan, StagedProgram
from weft.parallel.pipeline.segments import Part, Segments
from weft.parallel.recompute import with_recompute
from weft.program.graph import Phase, Program, Role


def run_pipeline(
    program: Program, plan: PipelinePlan, inputs: Mapping[str, Array]
) -> tuple[float, dict[str, Array]]:
    """Loss and next values of a step executed by all ranks of all stages."""
    staged = StagedProgram(program, plan.micro_batches, plan.cut)
    sent: dict[str, Array] = {}
    stages = [
        _Stage(
            with_recompute(stage.program, plan.plans[number].recompute),
            staged.segments(number, plan.plans[number]),
            inputs,
            plan.micro_batches,
        )
        for number, stage in enumerate(staged.stages)
    ]
    for stage in staged.stages:
        assert all(p.phase is not Phase.UPDATE and not p.once for p in stage.sends)
    for stage in stages:
        stage.once(Part.SETUP)
        stage.once(Part.SETTLE)
    for number in range(plan.micro_batches):
        for stage in stages:
            stage.begin(number, sent)
            stage.part(Part.FORWARD, sent)
        for stage in reversed(stages):
            stage.part(Part.INPUTS, sent)
            stage.part(Part.WEIGHTS, sent)
            stage.end()
    updates: dict[str, Array] = {}
    for stage in stages:
        stage.once(Part.FINISH)
        updates |= stage.updates()
    return sum(stage.loss() for stage in stages), updates


class _Stage:
    def __init__(
        self, program: Program, found: Segments, inputs: Mapping[str, Array], count: int
    ) -> None:
        self._program, self._segments, self._inputs, self._count = program, found, inputs, count
        self._shape = found.local.mesh.shape
        self._sharding = {i.name: i.sharding for i in found.local.inputs}
        self._rng = np.random.default_rng(0)
        self._ranks = Ranks(program, found.local, inputs, names=frozenset())
        self._lasting: dict[int, Parts] = {
            i.slot: self._laid(inputs[i.name], i.name)
            for i in found.local.inputs
            if not self._varies(i.name)
        }
        self._sums: dict[int, Parts] = {}

    def _varies(self, name: str) -> bool:
        given = self._program.input_by_name[name]
        return given.role in (Role.BATCH, Role.MICRO_BATCH, Role.RECEIVED)

    def _laid(self, whole: Array, name: str) -> Parts:
        return distribute(whole, self._sharding[name], self._shape, self._rng)

    def once(self, part: Part) -> None:
        self._ranks.slots = {**self._lasting, **self._sums}
        self._run(part)
        self._lasting = self._ranks.slots

    def begin(self, number: int, sent: dict[str, Array]) -> None:
        self._ranks.slots = dict(self._lasting)
        self._waiting: list[tuple[str, int]] = []
        for given in self._segments.local.inputs:
            role = self._program.input_by_name[given.name].role
            if role is Role.RECEIVED:
                self._waiting.append((given.name, given.slot))
            elif given.name == MICRO_BATCH:
                self._ranks.slots[given.slot] = self._laid(np.asarray(number), given.name)
            elif role is Role.BATCH:
                part = np.split(self._inputs[given.name], self._count)[number]
                self._ranks.slots[given.slot] = self._laid(part, given.name)

    def part(self, part: Part, sent: dict[str, Array]) -> None:
        for name, slot in [pair for pair in self._waiting if pair[0] in sent]:
            self._ranks.slots[slot] = self._laid(sent.pop(name), name)
            self._waiting.remove((name, slot))
        self._run(part)
        for summand, total in self._segments.sums[part]:
            made = self._ranks.slots[summand]
            known = self._sums.get(total)
            self._sums[total] = made if known is None else {d: known[d] + made[d] for d in made}
        for number in self._segments.parts[part]:
            run = self._segments.local.instructions[number]
            if isinstance(run, Run) and run.op == "send":
                parts = self._ranks.slots[self._segments.sends[str(run.args[1])]]
                whole = collect(parts, run.strategy.operands[0], self._shape)
                sent[str(run.args[1])] = whole

    def end(self) -> None:
        assert self._waiting == [], "what was received is used"

    def _run(self, part: Part) -> None:
        for number in self._segments.parts[part]:
            instruction = self._segments.local.instructions[number]
            if isinstance(instruction, Run):
                self._ranks.apply(instruction)
            else:
                self._ranks.communicate(instruction)

    def loss(self) -> float:
        parts = self._lasting[self._segments.local.loss]
        return float(collect(parts, (-1,) * len(self._shape), self._shape))

    def updates(self) -> dict[str, Array]:
        return {
            name: collect(self._lasting[slot], self._sharding[name], self._shape)
            for name, slot in self._segments.local.updates
        }
