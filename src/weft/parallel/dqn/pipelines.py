# pyright: standard
"""Pipelines whose stages the trained policy cuts, each made and simulated as an expert's is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from weft.core.errors import InfeasibleError, InputError
from weft.core.units import format_bytes
from weft.parallel.degrees import Degrees
from weft.parallel.dqn.acting import cut
from weft.parallel.dqn.cutting import Cutting
from weft.parallel.dqn.pieces import chain_of, line_of
from weft.parallel.estimate import slowest_device
from weft.parallel.experts import plan_by_degrees
from weft.parallel.pinning import resolve
from weft.parallel.pipeline.cut import Cut
from weft.parallel.pipeline.expert import pipeline_of_stages
from weft.parallel.pipeline.microbatch import in_micro_batches
from weft.parallel.pipeline.pinned import own_pins
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.pipeline.stages import StageProgram
from weft.parallel.plan import Alternative, ParallelPlan
from weft.parallel.planner import PipelineOutcome, Progress
from weft.parallel.request import PlanRequest
from weft.parallel.rows import batch_rows

__all__ = ["cut_pipelines"]

STAGES, MICRO_BATCHES = (2, 3, 4), (4, 8, 16, 32)
"""What is tried. The policy was trained on these."""
MADE = 4
"""Pipelines that are made, those first that the policy expects to be shortest. Chosen: each takes
as long as an expert's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """A pipeline that might be made.

    Attributes:
        seconds: that a step is expected to take [s].
        micro_batches: parts of the batch.
        firsts: of each stage but the first, its first node.
        devices: of each stage.
    """

    seconds: float
    micro_batches: int
    firsts: tuple[int, ...]
    devices: tuple[int, ...]


def cut_pipelines(
    request: PlanRequest,
    progress: Progress,
    most_s: float,
    stop: Callable[[], bool] = lambda: False,
) -> PipelineOutcome:
    """The fastest pipeline that fits, of those that the policy expects most of.

    Args:
        request: what to plan.
        progress: told in words what is going on.
        most_s: a step that is of no interest, since a plan of one stage is faster [s].
        stop: asked before each pipeline whether to end with the best so far.
    """
    until_s = time.perf_counter() + request.time_limit_s
    ways = sorted(_ways(request), key=lambda way: way.seconds)
    made: list[PipelinePlan] = []
    notes: tuple[str, ...] = ()
    for number, way in enumerate(ways[:MADE], start=1):
        late = time.perf_counter() > until_s
        if made and (late or stop()):
            why = "for want of time" if late else "since the search was stopped"
            notes = (f"pipelines were left out {why}",)
            break
        progress(f"pipeline {number} of {min(len(ways), MADE)}: {len(way.devices)} stages")
        for zero in (1, 3):
            plan = _made(request, way, zero)
            if plan is not None:
                made.append(plan)
                if plan.prediction.peak_bytes <= request.limit_bytes:
                    break
    fits = [plan for plan in made if plan.prediction.peak_bytes <= request.limit_bytes]
    best = min(fits, key=lambda plan: plan.prediction.step_s, default=None)
    if best is not None and best.prediction.step_s > most_s:
        best = None
    smallest = min((plan.prediction.peak_bytes for plan in made), default=0.0)
    return PipelineOutcome(
        plan=best,
        alternatives=tuple(_alternative(plan, request) for plan in made if plan is not best),
        tightest=f"pipelines need {format_bytes(smallest)}" if made and not fits else "",
        notes=notes,
    )


def _ways(request: PlanRequest) -> Iterator[_Way]:
    """Cuts of each number of stages and micro-batches, by the policy."""
    program, line = request.program, line_of(request.machine)
    rows = batch_rows(program)
    for parts in MICRO_BATCHES:
        try:
            part = in_micro_batches(program, parts)
            chain, firsts = chain_of(part, slowest_device(request.machine), parts)
        except InputError:
            continue  # the batch does not divide, or the program mixes its samples
        for stages in STAGES:
            if stages > min(len(chain), line.num_devices):
                continue
            task = Cutting(chain=chain, line=line, stages=stages, micro_batches=parts, radius=0)
            cuts, seconds = cut(task)
            edges = (0, *(device for _, device in cuts), line.num_devices)
            devices = tuple(b - a for a, b in pairwise(edges))
            if all(rows // parts % count == 0 for count in devices):
                yield _Way(
                    seconds=seconds,
                    micro_batches=parts,
                    firsts=tuple(firsts[piece] for piece, _ in cuts),
                    devices=devices,
                )


def _made(request: PlanRequest, way: _Way, zero: int) -> PipelinePlan | None:
    """The pipeline, simulated; None if it cannot be."""
    part = in_micro_batches(request.program, way.micro_batches)
    pinning = resolve(part, request.pins)

    def written(stage: StageProgram) -> ParallelPlan:
        own = Degrees(
            dp=way.devices[stage.number], zero=zero if way.devices[stage.number] > 1 else 0
        )
        return plan_by_degrees(stage.program, request.machine, own, own_pins(stage, pinning))

    try:
        return pipeline_of_stages(
            request.program,
            request.machine,
            cut=Cut.at(way.firsts),
            num_groups=len(way.devices),
            micro_batches=way.micro_batches,
            schedule="1f1b",
            written=written,
            kind=way.devices.__getitem__,
            pinning=pinning,
        )
    except (InputError, InfeasibleError):
        return None


def _alternative(plan: PipelinePlan, request: PlanRequest) -> Alternative:
    devices = "+".join(map(str, plan.group_devices))
    return Alternative(
        name=f"dqn pipeline {devices}, {plan.micro_batches} micro-batches",
        step_s=plan.prediction.step_s,
        peak_bytes=plan.prediction.peak_bytes,
        fits=plan.prediction.peak_bytes <= request.limit_bytes,
    )
