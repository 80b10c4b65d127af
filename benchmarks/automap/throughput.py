"""Simulated throughput of the paper's models on its configurations, by who plans them.

The paper has no such table: it names the plans that its agent finds for each category, and no
throughput. Here every planner plans whole steps of `BATCH` samples, of one stage or of several, and
the experts' best plan of one stage that fits stands beside.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from benchmarks.automap.models import BATCH, SERVERS, cluster, program_to_run, workloads
from weft.core.errors import InfeasibleError
from weft.machine import Machine
from weft.parallel.candidate import best_of
from weft.parallel.depth import views_of
from weft.parallel.experts import expert_proposals
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.plan import ParallelPlan
from weft.parallel.planning import PLANNERS, plan
from weft.parallel.request import PlanRequest
from weft.program.fold import fold
from weft.program.graph import Program
from weft.report.bench import Claim, at_least
from weft.report.table import Table

__all__ = [
    "Throughput",
    "planned_by",
    "throughput_claims",
    "throughput_table",
    "throughputs",
]

EXPERTS = "experts"
PLANNED_BY = (EXPERTS, "exact", "dqn", "mcts")
"""Whoever is no planner of this weft is left out."""
AS_FAST = 0.95
"""Least throughput of the agent's plans over that of the exact planner's. Chosen: 5 % for learning
anew each time, with neither a bound nor recomputation."""
NO_SLOWER = 1.0 - 1e-9
"""Least throughput over the experts'. Chosen: the law of all planners, but for rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """What somebody plans for a model.

    Attributes:
        model, configuration, by: which, where, and who.
        step_s: simulated; 0 where nothing fits [s].
        what: the plan in a word.
        seconds: that planning took, from the captured program on [s].
    """

    model: str
    configuration: str
    by: str
    step_s: float
    what: str
    seconds: float

    @property
    def per_s(self) -> float:
        """Samples in a second; 0 where nothing fits [1/s]."""
        return BATCH / self.step_s if self.step_s else 0.0


def throughputs(
    models: Sequence[str] = (), configurations: Sequence[str] = tuple(SERVERS)
) -> Iterator[Throughput]:
    """Plan each model on each configuration, by everybody; on every core one at a time."""
    cells = [(m, c) for m in models or tuple(workloads()) for c in configurations]
    cores = min(len(cells), len(os.sched_getaffinity(0)))
    if cores == 1:
        for model, configuration in cells:
            yield from _cell(model, configuration)
        return
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        for found in pool.map(_cell, *zip(*cells, strict=True)):
            yield from found


def _cell(model: str, configuration: str) -> list[Throughput]:
    """What everybody plans for one model on one configuration."""
    program, machine = program_to_run(model), cluster(configuration)
    rows: list[Throughput] = []
    for by in PLANNED_BY:
        if by == EXPERTS or by in PLANNERS:
            rows.append(_planned(program, machine, by, model, configuration))
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def _planned(
    program: Program, machine: Machine, by: str, model: str, configuration: str
) -> Throughput:
    start = time.perf_counter()
    step_s, what = _experts(program, machine) if by == EXPERTS else planned_by(program, machine, by)
    seconds = time.perf_counter() - start
    return Throughput(
        model=model,
        configuration=configuration,
        by=by,
        step_s=step_s,
        what=what,
        seconds=seconds,
    )


def _experts(program: Program, machine: Machine) -> tuple[float, str]:
    """The fastest of the hand-written plans of one stage that fit."""
    folding = fold(program)
    request = PlanRequest(program=program, machine=machine)
    proposals = expert_proposals(request, views_of(program, folding))
    fits = [proposal for proposal in proposals if proposal.fits]
    if not fits:
        return 0.0, "nothing fits"
    built = best_of(fits, {proposal.name for proposal in fits})
    return built.step_s, built.name


def planned_by(program: Program, machine: Machine, planner: str) -> tuple[float, str]:
    """Step of a planner's plan, 0 where it has none [s], and the plan, or why not, in words."""
    try:
        found = plan(program, machine, planner=planner)
    except InfeasibleError as error:
        return 0.0, f"nothing fits: {str(error.got).split(':', maxsplit=1)[0]}"
    return found.prediction.step_s, _words(found)


def _words(found: ParallelPlan | PipelinePlan) -> str:
    if isinstance(found, ParallelPlan):
        recomputing = ", recomputing" if found.recompute else ""
        by_hand = ", by hand" if any("hand-written" in note for note in found.notes) else ""
        return f"mesh {found.mesh}{recomputing}{by_hand}"
    meshes = "+".join(str(plan.mesh) for plan in found.plans[: found.num_groups])
    return f"stages {meshes}, {found.micro_batches} micro-batches, {found.schedule}"


def throughput_claims(found: Sequence[Throughput]) -> tuple[Claim, ...]:
    """The agent plans all that the exact planner does, and nobody is slower than any expert."""
    by = {(f.model, f.configuration, f.by): f for f in found}
    cases = list(dict.fromkeys((f.model, f.configuration) for f in found))

    def least(planner: str, other: str) -> float:
        pairs = ((by[*case, planner].per_s, by[*case, other].per_s) for case in cases)
        return min(own / known for own, known in pairs if known)

    planners = [name for name in _columns(found) if name != EXPERTS]
    return (
        at_least("throughput: least of dqn's over exact's", least("dqn", "exact"), AS_FAST),
        *(
            at_least(
                f"throughput: least of {name}'s over the experts'", least(name, EXPERTS), NO_SLOWER
            )
            for name in planners
        ),
    )


def _columns(found: Sequence[Throughput]) -> tuple[str, ...]:
    """Who planned, in order."""
    return tuple(name for name in PLANNED_BY if any(f.by == name for f in found))


def throughput_table(found: Sequence[Throughput]) -> Table:
    """Samples in a second, by model and configuration in rows and by planner in columns."""
    by = {(f.model, f.configuration, f.by): f for f in found}
    planners = _columns(found)
    cases = dict.fromkeys((f.model, f.configuration) for f in found)

    def cell(one: Throughput) -> str:
        made = f"{one.per_s:.1f}/s, {one.what}" if one.per_s else one.what
        return f"{made}; {one.seconds:.0f} s"

    return Table(
        columns=("model", "servers", *planners),
        rows=tuple(
            (model, f"{where}, {SERVERS[where]}", *(cell(by[model, where, p]) for p in planners))
            for model, where in cases
        ),
    )
