"""Jobs: plans that local ranks run one after the other, for benchmarks to compare.

One launch of the ranks serves many jobs, because starting Python and torch takes longer than
a small job. `run_jobs` writes the jobs to a folder and starts `python -m benchmarks.job` on
every rank; rank 0 writes what came out next to them.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from weft.capture import Workload, capture
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.plan import ParallelPlan
from weft.parallel.plan_files import load_plan, save_plan
from weft.program.graph import Program
from weft.runtime import World, deploy, guard, joined, launch
from weft.runtime.cluster import Cluster, launch_cluster
from weft.runtime.inductor import Compiler
from weft.workflow.recipe import load_workload

__all__ = [
    "ROOT",
    "Job",
    "Outcome",
    "TimedStep",
    "in_double",
    "program_of",
    "python_path",
    "run_jobs",
    "workload_of",
]

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A plan to run on local ranks.

    Attributes:
        recipe: "gpt.py:gpt_tiny", a function of a file in recipes/.
        double: whether everything is computed in float64.
        plan: what to run; its mesh has as many devices as there are ranks.
        steps: how many steps.
        keeps_state: whether the final state is wanted as whole tensors.
        compile: who compiles the step, if anybody.
    """

    recipe: str
    double: bool = False
    plan: ParallelPlan | PipelinePlan
    steps: int
    keeps_state: bool = False
    compile: Compiler | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a job did.

    Attributes:
        losses: of each step.
        seconds: from a step's batch to its loss, of each step, on rank 0 [s].
        state: parameters, buffers and optimizer state after the last step, if wanted.
    """

    losses: tuple[float, ...]
    seconds: tuple[float, ...]
    state: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedStep:
    """Time of a recipe's step as predicted and as measured [s]."""

    recipe: str
    predicted_s: float
    measured_s: float

    @property
    def error(self) -> float:
        """Relative difference of the prediction from the measurement."""
        return self.predicted_s / self.measured_s - 1


@functools.cache
def workload_of(recipe: str, *, double: bool = False) -> Workload:
    """A workload of recipes/, in double precision if wanted."""
    workload = load_workload(str(ROOT / "recipes" / recipe))
    return in_double(workload) if double else workload


@functools.cache
def program_of(recipe: str, *, double: bool = False) -> Program:
    """The captured step of a workload of recipes/."""
    return capture(workload_of(recipe, double=double))


def in_double(workload: Workload) -> Workload:
    """The same workload with parameters, buffers and data in float64; equal initial values."""
    return replace(
        workload,
        model=lambda: workload.model().double(),
        batch=lambda step: {
            key: entry.double() if entry.is_floating_point() else entry
            for key, entry in workload.batch(step).items()
        },
    )


def python_path() -> dict[str, str]:
    """Variables with which a child process finds this folder and all that this process finds."""
    return {"PYTHONPATH": os.pathsep.join([str(ROOT), *(p for p in sys.path if p)])}


def run_jobs(
    jobs: Sequence[Job], num_ranks: int, *, timeout_s: float, cluster: Cluster | None = None
) -> tuple[Outcome, ...]:
    """Run jobs on ranks of this host with one thread each, or in an uneven cluster on it.

    Raises:
        RunError: a rank failed, or the time was up.
    """
    with tempfile.TemporaryDirectory(prefix="weft-bench-") as name:
        folder = Path(name)
        for number, job in enumerate(jobs):
            save_plan(job.plan, folder / f"{number}.plan.json")
            about = {
                "recipe": job.recipe,
                "double": job.double,
                "steps": job.steps,
                "keeps_state": job.keeps_state,
                "compile": job.compile,
            }
            (folder / f"{number}.job.json").write_text(json.dumps(about))
        command = ["-m", "benchmarks.job", name, str(len(jobs))]
        if cluster is None:
            launch(command, num_ranks, timeout_s=timeout_s, env=python_path())
        else:
            launch_cluster(command, cluster, timeout_s=timeout_s, env=python_path())
        saved = [torch.load(folder / f"{number}.outcome.pt") for number in range(len(jobs))]
    return tuple(Outcome(**fields) for fields in saved)


def main(folder: Path, count: int) -> None:
    """Life of a rank: every job in turn."""
    with joined() as world, guard(world) as progress:
        for number in range(count):
            about = json.loads((folder / f"{number}.job.json").read_text())
            job = Job(plan=load_plan(folder / f"{number}.plan.json"), **about)
            progress.step = number
            outcome = run_job(job, world)
            if world.is_first:
                fields = {"losses": outcome.losses, "seconds": outcome.seconds}
                torch.save({**fields, "state": outcome.state}, folder / f"{number}.outcome.pt")


def run_job(job: Job, world: World) -> Outcome:
    """One job on this rank."""
    workload = workload_of(job.recipe, double=job.double)
    program = program_of(job.recipe, double=job.double)
    step = deploy(job.plan, workload, compile=job.compile, world=world, program=program)
    losses: list[float] = []
    seconds: list[float] = []
    for number in range(job.steps):
        batch = workload.batch(number)
        start = time.perf_counter()
        losses.append(float(step(batch)))
        seconds.append(time.perf_counter() - start)
    state = step.full_state() if job.keeps_state else {}
    return Outcome(losses=tuple(losses), seconds=tuple(seconds), state=state)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
