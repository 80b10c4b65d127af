"""One capture and one search in a process of its own: its time, its gap, its memory."""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from dataclasses import asdict, dataclass, replace

from benchmarks.job import ROOT
from benchmarks.own_process import run_alone
from benchmarks.plan.case import llama_of_depth
from weft.capture import Workload, capture
from weft.machine.model import Machine
from weft.machine.presets import preset
from weft.parallel.depth import views_of
from weft.parallel.exact.pipelines.search import PipelineSearch
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.plan import Level
from weft.parallel.planning import plan
from weft.parallel.request import PlanRequest
from weft.program.fold import fold

__all__ = ["Case", "Outcome", "measure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What to plan.

    Attributes:
        recipe: a function of recipes/llama3.py.
        layers: the recipe's widths with so many layers; its own number if 0.
        machine: name of a preset.
        batch: rows of the batch.
        level: "fast" or "best".
        pipelines_only: whether to time the search over pipelines alone, without building a plan.
        memory_bytes: of one device, in place of what it has; that if 0 [bytes].
        timeout_s: limit of the whole process [s].
    """

    recipe: str
    layers: int = 0
    machine: str
    batch: int
    level: str
    pipelines_only: bool = False
    memory_bytes: float = 0.0
    timeout_s: float = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came out.

    Attributes:
        nodes: of the program.
        capture_s, capture_cpu_s, search_s, search_cpu_s: of the wall and of the processor [s].
        step_s: of the plan, simulated; 0 where only the search was timed [s].
        gap: distance from its bound.
        found: the plan in a few words.
        rss_bytes: most memory of the process [bytes].
    """

    nodes: int
    capture_s: float
    capture_cpu_s: float
    search_s: float
    search_cpu_s: float
    step_s: float
    gap: float
    found: str
    rss_bytes: int


def workload_for(case: Case) -> Workload:
    """The case's recipe, or its widths at another depth."""
    if case.layers:
        return llama_of_depth(case.layers, batch=case.batch)
    sys.path.insert(0, str(ROOT / "recipes"))
    return getattr(importlib.import_module("llama3"), case.recipe)(batch=case.batch)


def run_case(case: Case) -> Outcome:
    """Capture and search, in this process."""
    clock = (time.perf_counter(), time.process_time())
    program = capture(workload_for(case))
    captured = (time.perf_counter(), time.process_time())
    machine, level = _machine(case), Level(case.level)
    step_s, gap, words = 0.0, 0.0, ""
    if case.pipelines_only:
        request = PlanRequest(program=program, machine=machine, level=level)
        search = PipelineSearch(request, views_of(program, fold(program)))
        search.run()
        words = f"{len(search.found)} pipelines worked out"
    else:
        found = plan(program, machine, level=level)
        step_s, gap = found.prediction.step_s, found.prediction.gap
        if isinstance(found, PipelinePlan):
            words = f"{found.num_stages} stages, {found.groups_in_words}"
        else:
            words = f"mesh {found.mesh}"
    ended = (time.perf_counter(), time.process_time())
    return Outcome(
        nodes=len(program.nodes),
        capture_s=captured[0] - clock[0],
        capture_cpu_s=captured[1] - clock[1],
        search_s=ended[0] - captured[0],
        search_cpu_s=ended[1] - captured[1],
        step_s=step_s,
        gap=gap,
        found=words,
        rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _machine(case: Case) -> Machine:
    """The case's machine, with the memory that it asks for."""
    machine = preset(case.machine)
    if not case.memory_bytes:
        return machine
    groups = (
        replace(
            group,
            device=replace(
                group.device,
                memory_bytes=replace(group.device.memory_bytes, value=case.memory_bytes),
            ),
        )
        for group in machine.groups
    )
    return replace(machine, groups=tuple(groups))


def measure(case: Case) -> Outcome:
    """Run a case in a new process.

    Raises:
        RunError: the process failed or ran out of time.
    """
    name = f"{case.recipe} on {case.machine}"
    return Outcome(**run_alone("benchmarks.rhino_search.case", asdict(case), name, case.timeout_s))


if __name__ == "__main__":
    print(json.dumps(asdict(run_case(Case(**json.loads(sys.argv[1]))))))
