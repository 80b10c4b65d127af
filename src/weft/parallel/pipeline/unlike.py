"""Pipelines on unlike devices: a stage for each kind, with as many layers as it is fast.

Groups of neighbouring nodes that are alike make one stage each, on which micro-batches are data
parallel; or two kinds that follow each other share one. Which of them is first is tried out.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from math import inf

from weft.core.errors import InfeasibleError, InputError, VerifyError
from weft.machine.model import Machine
from weft.parallel.degrees import DegreeNames
from weft.parallel.pipeline.expert import pipeline_expert
from weft.parallel.pipeline.microbatch import in_micro_batches
from weft.parallel.pipeline.orders import orders
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.pipeline.standing import in_rank_order
from weft.parallel.pipeline.timing import pipeline_time
from weft.parallel.plan import Level
from weft.parallel.request import PlanRequest
from weft.parallel.rows import batch_rows
from weft.program.graph import Program

__all__ = ["kinds_apart", "unlike_pipelines"]

COUNTS = (2, 4, 8, 16)
"""Micro-batches that are tried. Derived: with 16 on four stages the bubble is a fifth."""
MOST_KINDS = 6
"""Groups of nodes beyond which they are not all cut apart in every way."""
MOST_ORDERS = {Level.FAST: 24, Level.BEST: 96}
"""Pipelines out of the order of ranks that are made. Derived: 24 are all orders of four groups;
each takes half a second for a model of 1,500 operators."""
ALIKE = 0.95
"""Step in another order, at least, over that in the order of ranks if nothing sent took time.
Chosen: cuts fall between layers, so stages in another order are a little shorter or longer."""


def unlike_pipelines(request: PlanRequest) -> list[PipelinePlan]:
    """All of them that divide, simulated, fastest first.

    In the order of ranks all are made. Other orders can gain what transfers take, and room; so they
    are made of those that might, until time is up.

    Args:
        request: what to plan; none on a machine of equal devices, or where one stage is asked for.
    """
    if request.machine.is_uniform or request.max_stages == 1 or request.mesh is not None:
        return []
    until_s = time.perf_counter() + request.time_limit_s
    desk = _Desk(request)
    found = [
        plan
        for sizes in kinds_apart(request.machine)
        for count in COUNTS
        for plan in desk.made(sizes, in_rank_order(len(sizes)), count)
    ]
    left = MOST_ORDERS.get(request.level, MOST_ORDERS[Level.FAST])
    for plan in sorted(found, key=_unhindered_s):
        best_s = min((own.prediction.step_s for own in found if own.fits), default=inf)
        if ALIKE * _unhindered_s(plan) >= best_s:
            break
        for order in orders(request.machine, plan.group_devices)[1:]:
            if not left or time.perf_counter() > until_s:
                break
            found += desk.made(plan.group_devices, order, plan.micro_batches)
            left -= 1
    return sorted(found, key=lambda plan: plan.prediction.step_s)


class _Desk:
    """Where they are written; keeps the program of each number of micro-batches."""

    def __init__(self, request: PlanRequest) -> None:
        self._request = request
        self._rows = batch_rows(request.program)
        self._parts: dict[int, Program] = {}

    def made(
        self, blocks: Sequence[int], standing: tuple[int, ...], count: int
    ) -> tuple[PipelinePlan, ...]:
        """The pipeline on blocks of so many ranks, in one order; none if it does not divide."""
        if self._rows % count or any(self._rows // count % size for size in blocks):
            return ()
        request = self._request
        try:
            if count not in self._parts:
                self._parts[count] = in_micro_batches(request.program, count)
            plan = pipeline_expert(
                request.program,
                request.machine,
                pp=len(blocks),
                micro_batches=count,
                by_group=[DegreeNames(dp=blocks[block]) for block in standing],
                standing=standing,
                memory_limit_bytes=request.memory_limit_bytes,
                pins=request.pins,
                part=self._parts[count],
            )
        except (InputError, InfeasibleError, VerifyError):
            return ()  # an engineer would not configure what does not divide
        return (plan,)


def _unhindered_s(plan: PipelinePlan) -> float:
    """A step if nothing that stages send took time [s]."""
    p = plan.prediction
    stages = [replace(stage, send_forward_s=0.0, send_backward_s=0.0) for stage in p.stages]
    return p.step_s - p.pipeline_s + pipeline_time(plan.orders, stages).step_s


def kinds_apart(machine: Machine) -> Iterator[tuple[int, ...]]:
    """Devices of each block, if neighbouring groups of nodes are cut apart in all ways."""
    counts = [group.num_devices for group in machine.groups]
    if len(counts) > MOST_KINDS:
        yield tuple(counts)
        return
    places = range(1, len(counts))
    for number in range(1, len(counts)):
        for cuts in combinations(places, number):
            yield tuple(sum(counts[a:b]) for a, b in pairwise((0, *cuts, len(counts))))
