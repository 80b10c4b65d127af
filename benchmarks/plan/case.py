"""One capture and its searches in a process of its own, so that its peak memory is its own.

`measure` starts `python -m benchmarks.plan.case CASE`, which prints one line of JSON. Times are
given twice: of the processor, which other work on the machine changes little, and of the
wall. All of it runs in one thread but for what torch does while it traces.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field

from benchmarks.job import ROOT, workload_of
from benchmarks.own_process import run_alone
from weft.capture import Workload, capture
from weft.machine.model import Machine
from weft.machine.presets import preset
from weft.parallel.depth import views_of
from weft.parallel.estimate import slowest_device
from weft.parallel.exact.flow import FlowModel
from weft.parallel.exact.meshes import candidate_meshes
from weft.parallel.exact.planner import ExactPlanner
from weft.parallel.placement import Mesh
from weft.parallel.plan import Level, ParallelPlan
from weft.parallel.planning import plan
from weft.parallel.problem import build_problem
from weft.parallel.request import PlanRequest
from weft.parallel.reshard import Resharding
from weft.parallel.rows import batch_rows
from weft.parallel.skeleton import Skeleton, build_skeleton
from weft.parallel.strategies import StrategyTable
from weft.program.fold import fold
from weft.program.graph import Program

__all__ = ["Case", "Elapsed", "Outcome", "measure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What to plan.

    Attributes:
        recipe: a function of recipes/llama3.py.
        layers: the recipe's widths with so many layers; its own number if 0.
        machine: name of a preset.
        mesh: the device grid; all shapes are tried if empty.
        budgets: whether to search again with half the memory that could be saved.
        programmes: how often to build and solve the flow programme by itself.
        timeout_s: limit of the whole process [s].
    """

    recipe: str
    layers: int = 0
    machine: str
    mesh: tuple[int, ...] = ()
    budgets: bool = False
    programmes: int = 0
    timeout_s: float = 600.0


@dataclass(slots=True, kw_only=True)
class Elapsed:
    """How long something took, of the processor and of the wall [s]."""

    cpu_s: float = 0.0
    wall_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a case took.

    Attributes:
        capture, search: of the workload; of the whole call of `weft.plan`.
        tight_search: the same under a memory limit that binds.
        fold: of folding the program and linking what is left, which all meshes share.
        programme: of building and solving the flow programme of one mesh, best of several.
        num_nodes: of the captured program.
        columns, rows: of the flow programme.
        meshes: how many shapes were tried.
        free, tight: what was found, in words and figures.
        peak_rss_bytes: most memory of the process [bytes].
    """

    capture: Elapsed = field(default_factory=Elapsed)
    search: Elapsed = field(default_factory=Elapsed)
    tight_search: Elapsed = field(default_factory=Elapsed)
    fold: Elapsed = field(default_factory=Elapsed)
    programme: Elapsed = field(default_factory=Elapsed)
    num_nodes: int = 0
    columns: int = 0
    rows: int = 0
    meshes: int = 0
    free: dict[str, object] = field(default_factory=dict[str, object])
    tight: dict[str, object] = field(default_factory=dict[str, object])
    peak_rss_bytes: int = 0


def measure(case: Case) -> Outcome:
    """Run a case in a new process.

    Raises:
        RunError: the process failed or ran out of time.
    """
    name = f"{case.recipe} on {case.machine}"
    raw = run_alone("benchmarks.plan.case", asdict(case), name, case.timeout_s)
    parts = {name: Elapsed(**raw.pop(name)) for name in PARTS}
    return Outcome(**parts, **raw)


PARTS = ("capture", "search", "tight_search", "fold", "programme")


@contextmanager
def timed(elapsed: Elapsed) -> Iterator[None]:
    """Store how long the block takes."""
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    yield
    elapsed.cpu_s, elapsed.wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s


def workload_for(case: Case) -> Workload:
    """The case's recipe, or its widths at another depth."""
    if case.layers:
        return llama_of_depth(case.layers, batch=16)
    return workload_of(f"llama3.py:{case.recipe}")


def llama_of_depth(layers: int, *, batch: int) -> Workload:
    """A Llama of the 8B's widths with so many layers."""
    sys.path.insert(0, str(ROOT / "recipes"))
    llama3 = importlib.import_module("llama3")
    config = llama3.Config(
        num_layers=layers, width=4096, num_heads=32, num_kv_heads=8, hidden=14_336
    )
    return llama3.llama3(f"llama3_{layers}layers", config, batch=batch, lr=3e-4)


def run_case(case: Case) -> Outcome:
    """Capture and search, in this process."""
    outcome = Outcome()
    workload, machine = workload_for(case), preset(case.machine)
    with timed(outcome.capture):
        program = capture(workload)
    outcome.num_nodes = len(program.nodes)
    mesh = case.mesh or None
    outcome.meshes = 1 if mesh else len(candidate_meshes(machine, Level.FAST, batch_rows(program)))
    with timed(outcome.search):
        free = plan(program, machine, mesh=mesh, max_stages=1)
    outcome.free = _described(free)
    if case.budgets:
        least = least_peak(program, machine, Mesh(case.mesh))
        limit = 0.5 * (least + free.prediction.peak_bytes)
        with timed(outcome.tight_search):
            tight = plan(program, machine, mesh=mesh, max_stages=1, memory_limit_bytes=limit)
        outcome.tight = {**_described(tight), "limit_bytes": limit, "least_peak_bytes": least}
    if case.programmes:
        solve_programmes(program, machine, Mesh(case.mesh), case.programmes, outcome)
    outcome.peak_rss_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return outcome


def _described(found: ParallelPlan) -> dict[str, object]:
    return {
        "mesh": str(found.mesh),
        "recomputes": bool(found.recompute),
        "step_s": found.prediction.step_s,
        "peak_bytes": found.prediction.peak_bytes,
        "compared": len(found.alternatives) + 1,
    }


def least_peak(program: Program, machine: Machine, mesh: Mesh) -> float:
    """Smallest peak on a mesh that a price of memory reaches without recomputation [bytes]."""
    request = PlanRequest(program=program, machine=machine, mesh=mesh, memory_limit_bytes=1.0)
    folding = fold(program)
    views = views_of(program, folding)
    with closing(ExactPlanner().start(request, folding, views, lambda _: None)) as search:
        proposals = search.proposals()
    return min(p.prediction.peak_bytes for p in proposals if "recomputation" not in p.name)


def solve_programmes(
    program: Program, machine: Machine, mesh: Mesh, times: int, outcome: Outcome
) -> None:
    """Build and solve the flow programme alone, without folding before and lowering after."""
    with timed(outcome.fold):
        skeleton = build_skeleton(program, fold(program))
    runs: list[Elapsed] = []
    for _ in range(times):
        runs.append(Elapsed())
        with timed(runs[-1]):
            model = _model(skeleton, machine, mesh)
            model.solve()
        outcome.columns, outcome.rows = model.num_columns, model.num_rows
    outcome.programme = min(runs, key=lambda elapsed: elapsed.cpu_s)


def _model(skeleton: Skeleton, machine: Machine, mesh: Mesh) -> FlowModel:
    table = StrategyTable(skeleton.program, mesh, slowest_device(machine))
    return FlowModel(build_problem(skeleton, mesh, table, Resharding(machine, mesh)))


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    outcome = run_case(Case(**{**given, "mesh": tuple(given["mesh"])}))
    print(json.dumps(asdict(outcome)))
