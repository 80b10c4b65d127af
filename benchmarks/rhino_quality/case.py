"""One model on one machine, in a process of its own: by hand, in one stage, and searched."""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from dataclasses import asdict, dataclass

from benchmarks.job import ROOT
from benchmarks.own_process import run_alone
from benchmarks.rhino_quality.grid import best_by_hand
from weft.capture import Workload, capture
from weft.core.errors import InfeasibleError
from weft.machine.presets import preset
from weft.parallel.depth import views_of
from weft.parallel.exact.pipelines.search import PipelineSearch
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.plan import Level, ParallelPlan
from weft.parallel.planning import plan
from weft.parallel.request import PlanRequest
from weft.program.fold import fold

__all__ = ["Case", "Outcome", "measure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model, a machine, and how hard to look.

    Attributes:
        name: for the table.
        recipe: "llama3:llama3_8b", a function of a file in recipes/.
        machine: name of a preset.
        batch: rows of the batch.
        sizes: for recipes/gpt3.py: layers, width, heads.
        level: "fast" or "best".
        configs: configurations that the grid by hand looks at.
        timeout_s: limit of the whole process [s].
    """

    name: str
    recipe: str
    machine: str
    batch: int
    sizes: tuple[int, ...] = ()
    level: str = "best"
    configs: int = 10
    timeout_s: float = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came out; steps are simulated, infinite where nothing fits [s].

    Attributes:
        nodes: of the program.
        capture_s, search_s, grid_s: processor time [s].
        hand, hand_s: the best plan of the grid.
        priced: combinations of the grid that were priced.
        single, single_s: the best plan of one stage.
        found, found_s, gap: the plan of the whole search and its distance from its bound.
        peak_bytes: of the plan on one device [bytes].
        rss_bytes: most memory of the process [bytes].
    """

    nodes: int
    capture_s: float
    search_s: float
    grid_s: float
    hand: str
    hand_s: float
    priced: int
    single: str
    single_s: float
    found: str
    found_s: float
    gap: float
    peak_bytes: float
    rss_bytes: int


def workload_for(case: Case) -> Workload:
    """The workload of a case."""
    sys.path.insert(0, str(ROOT / "recipes"))
    module, _, function = case.recipe.partition(":")
    recipes = importlib.import_module(module)
    if case.sizes:
        layers, width, heads = case.sizes
        config = recipes.Config(
            num_layers=layers, width=width, num_heads=heads, fused_attention=True
        )
        return recipes.gpt3(function, config, batch=case.batch)
    return getattr(recipes, function)(batch=case.batch)


def run_case(case: Case) -> Outcome:
    """Everything, in this process."""
    started = time.process_time()
    program, machine = capture(workload_for(case)), preset(case.machine)
    captured = time.process_time()
    level = Level(case.level)
    request = PlanRequest(program=program, machine=machine, level=level)
    views = views_of(program, fold(program))
    search = PipelineSearch(request, views)
    hand, hand_s, priced = best_by_hand(request, views, search, case.configs)
    by_hand = time.process_time()
    single, single_s = _single(request)
    before = time.process_time()
    found = plan(program, machine, level=level)
    p = found.prediction
    return Outcome(
        nodes=len(program.nodes),
        capture_s=captured - started,
        search_s=time.process_time() - before,
        grid_s=by_hand - captured,
        hand=hand,
        hand_s=hand_s,
        priced=priced,
        single=single,
        single_s=single_s,
        found=described(found),
        found_s=p.step_s,
        gap=p.gap,
        peak_bytes=p.peak_bytes,
        rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _single(request: PlanRequest) -> tuple[str, float]:
    try:
        found = plan(request.program, request.machine, level=Level.FAST, max_stages=1)
    except InfeasibleError:
        return "none that fits", float("inf")
    return described(found), found.prediction.step_s


def described(found: ParallelPlan | PipelinePlan) -> str:
    """A plan in a few words."""
    if isinstance(found, ParallelPlan):
        return f"one stage, mesh {found.mesh}" + (", recomputing" if found.recompute else "")
    again = sum(bool(stage.recompute) for stage in found.plans)
    stages = f"{found.num_stages} stages on {found.groups_in_words}"
    return f"{stages}, {found.micro_batches} micro-batches, {found.schedule}, {again} recompute"


def measure(case: Case) -> Outcome:
    """Run a case in a new process.

    Raises:
        RunError: the process failed or ran out of time.
    """
    name = f"{case.name} on {case.machine}"
    return Outcome(**run_alone("benchmarks.rhino_quality.case", asdict(case), name, case.timeout_s))


if __name__ == "__main__":
    raw = json.loads(sys.argv[1])
    print(json.dumps(asdict(run_case(Case(**{**raw, "sizes": tuple(raw["sizes"])})))))
