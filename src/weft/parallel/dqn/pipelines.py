# pyright: standard
"""Pipelines whose stages the trained policy cuts, each made and simulated as an expert's is.

The policy was trained on stages that are data parallel, one forward and one backward pass in turn.
The best of these is also made with gradients of weights later, which fills the bubble and keeps
more; so variables are cut inside the stages as well, over ever more devices of a node, until it
fits, and as long as it gets faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise, takewhile
from math import inf

from weft.core.errors import InfeasibleError, InputError
from weft.core.units import format_bytes
from weft.parallel.degrees import Degrees
from weft.parallel.depth import Views, undivided
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
from weft.parallel.sequence import has_sequence
from weft.program.graph import Program

__all__ = ["cut_pipelines"]

STAGES, MICRO_BATCHES = (2, 3, 4), (4, 6, 8, 12, 16, 32)
"""What is tried. The policy was trained on these stages and on 4, 8, 16 and 32 micro-batches; those
in between divide batches that are multiples of 3."""
IN_TURN, FILLED = "1f1b", "zero-bubble"
"""Schedules: the one that the policy was trained for, and one with less of a bubble."""
MADE = 4
"""Pipelines that are made, those first whose rows few devices share, and of those the ones that the
policy expects to be shortest. Chosen: each takes as long as an expert's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """A pipeline that might be made.

    Attributes:
        seconds: that a step is expected to take [s].
        micro_batches: parts of the batch.
        firsts: of each stage but the first, its first node.
        devices: of each stage.
        inner: fewest of them that have to share a row of a micro-batch.
    """

    seconds: float
    micro_batches: int
    firsts: tuple[int, ...]
    devices: tuple[int, ...]
    inner: int


def cut_pipelines(
    request: PlanRequest,
    views: Views | None,
    progress: Progress,
    most_s: float,
    stop: Callable[[], bool] = lambda: False,
) -> PipelineOutcome:
    """The fastest pipeline that fits, of those that the policy expects most of.

    Args:
        request: what to plan.
        views: short versions of a deep program.
        progress: told in words what is going on.
        most_s: a step that is of no interest, since a plan of one stage is faster [s].
        stop: asked before each pipeline whether to end with the best so far.
    """
    return _Pipelines(request, views, progress, stop).best(most_s)


class _Pipelines:
    """Those of one request; lives only inside `cut_pipelines`."""

    def __init__(
        self,
        request: PlanRequest,
        views: Views | None,
        progress: Progress,
        stop: Callable[[], bool],
    ) -> None:
        self._request, self._progress, self._stop = request, progress, stop
        self._until_s = time.perf_counter() + request.time_limit_s
        self._view = undivided(request.program) if views is None else views.short
        self._by_sequence = has_sequence(request.program)
        self._parts: dict[int, Program] = {}
        self._made: list[PipelinePlan] = []
        self._notes: tuple[str, ...] = ()

    def best(self, most_s: float) -> PipelineOutcome:
        """The best of all, with the others."""
        # The policy knows data parallelism: rows shared by few devices come nearest to it.
        ways = sorted(self._ways(), key=lambda way: (way.inner, way.seconds))[:MADE]
        found: list[tuple[PipelinePlan, _Way]] = []
        for way in ways:
            if self._is_over():
                break
            self._progress(f"pipeline {len(found) + 1} of {len(ways)}: {len(way.devices)} stages")
            plan = self._stored(way, IN_TURN, way.inner)
            found += [] if plan is None else [(plan, way)]
        if found:
            self._fill(min(found, key=lambda pair: _rank(pair[0]))[1])
        best = min(self._made, key=_rank, default=None)
        fits = best is not None and best.fits
        tightest = "" if best is None or fits else f"pipelines need {format_bytes(_peak(best))}"
        chosen = best if best is not None and fits and best.prediction.step_s <= most_s else None
        return PipelineOutcome(
            plan=chosen,
            alternatives=tuple(_alternative(plan) for plan in self._made if plan is not chosen),
            tightest=tightest,
            notes=self._notes,
        )

    def _is_over(self) -> bool:
        late = time.perf_counter() > self._until_s
        if not self._made or not (late or self._stop()):
            return False
        why = "for want of time" if late else "since the search was stopped"
        self._notes = (f"pipelines were left out {why}",)
        return True

    def _fill(self, way: _Way) -> None:
        """Fill the bubble, variables cut over ever more devices while that is of use."""
        node = min(group.devices_per_node for group in self._request.machine.groups)
        best_s, inner = inf, way.inner
        while inner <= node and all(devices % inner == 0 for devices in way.devices):
            if self._is_over():
                return
            self._progress(f"{FILLED}, variables of each stage over {inner} devices")
            plan = self._stored(way, FILLED, inner)
            if plan is None or (plan.fits and plan.prediction.step_s >= best_s):
                return
            best_s, inner = plan.prediction.step_s if plan.fits else inf, inner * 2

    def _part(self, parts: int) -> Program:
        """The program of one micro-batch.

        Raises:
            InputError: the batch does not divide, or the program mixes its samples.
        """
        if parts not in self._parts:
            grown = self._view.lengthened(in_micro_batches(self._view.program, parts))
            whole = None if grown is None else grown.program
            self._parts[parts] = whole or in_micro_batches(self._request.program, parts)
        return self._parts[parts]

    def _ways(self) -> Iterator[_Way]:
        """Cuts of each number of stages and micro-batches, by the policy."""
        machine, rows = self._request.machine, batch_rows(self._request.program)
        line = line_of(machine)
        for parts in MICRO_BATCHES:
            try:
                chain, firsts = chain_of(self._part(parts), slowest_device(machine), parts)
            except InputError:
                continue
            for stages in STAGES:
                if stages > min(len(chain), line.num_devices):
                    continue
                task = Cutting(chain=chain, line=line, stages=stages, micro_batches=parts, radius=0)
                cuts, seconds = cut(task)
                edges = (0, *(device for _, device in cuts), line.num_devices)
                devices = tuple(b - a for a, b in pairwise(edges))
                inner = self._inner(rows // parts, devices)
                if inner:
                    yield _Way(
                        seconds=seconds,
                        micro_batches=parts,
                        firsts=tuple(firsts[piece] for piece, _ in cuts),
                        devices=devices,
                        inner=inner,
                    )

    def _inner(self, rows: int, devices: Sequence[int]) -> int:
        """Fewest devices to share a row so that rows divide among the rest; 0 if none do."""
        node = min(group.devices_per_node for group in self._request.machine.groups)
        for inner in takewhile(lambda n: n <= node, (2**power for power in count())):
            if all(own % inner == 0 == rows % (own // inner) for own in devices):
                return inner
        return 0

    def _stored(self, way: _Way, schedule: str, inner: int) -> PipelinePlan | None:
        """The pipeline, state stored in parts, and parameters as well if it does not fit else."""
        made = [self._simulated(way, schedule, inner, 1)]
        if made[0] is not None and not made[0].fits:
            made.append(self._simulated(way, schedule, inner, 3))
        plans = [plan for plan in made if plan is not None]
        self._made += plans
        return min(plans, key=_rank, default=None)

    def _simulated(self, way: _Way, schedule: str, inner: int, stored: int) -> PipelinePlan | None:
        """The pipeline, simulated; None if it cannot be."""
        request, part = self._request, self._part(way.micro_batches)
        pinning = resolve(part, request.pins)

        def written(stage: StageProgram) -> ParallelPlan:
            data = way.devices[stage.number] // inner
            zero = stored if data > 1 else 0
            own = Degrees(dp=data, tp=inner, sp=self._by_sequence and inner > 1, zero=zero)
            return plan_by_degrees(stage.program, request.machine, own, own_pins(stage, pinning))

        try:
            return pipeline_of_stages(
                request.program,
                request.machine,
                cut=Cut.at(way.firsts),
                num_groups=len(way.devices),
                micro_batches=way.micro_batches,
                schedule=schedule,
                written=written,
                kind=way.devices.__getitem__,
                pinning=pinning,
                part=part,
                memory_limit_bytes=request.limit_bytes,
            )
        except (InputError, InfeasibleError):
            return None


def _peak(plan: PipelinePlan) -> float:
    return plan.prediction.peak_bytes


def _rank(plan: PipelinePlan) -> tuple[bool, float]:
    """Order of preference: what fits by time, then what does not by size."""
    return (not plan.fits, plan.prediction.step_s if plan.fits else _peak(plan))


def _alternative(plan: PipelinePlan) -> Alternative:
    devices = "+".join(map(str, plan.group_devices))
    return Alternative(
        name=f"dqn pipeline {devices}, {plan.micro_batches} micro-batches",
        step_s=plan.prediction.step_s,
        peak_bytes=_peak(plan),
        fits=plan.fits,
    )
