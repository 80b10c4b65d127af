"""Whether a split step computes what one process computes: `weft bench equality`.

Six kinds of model train for some steps on real data, on two and on four gloo ranks, under
hand-written plans and under what the planner finds. Each run is compared with one process
that trains the same model, with plain torch and with weft's pure step. AdamW amplifies
rounding, so parameters are compared in double precision only.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from benchmarks.equality.machine import slow_machine
from benchmarks.equality.one_process import Trace, train_plainly, train_purely
from benchmarks.job import Job, Outcome, program_of, run_jobs, workload_of
from weft.parallel.experts import expert_plan
from weft.parallel.plan import ParallelPlan
from weft.parallel.planning import plan
from weft.parallel.serialize import plan_digest
from weft.program.graph import Program
from weft.report.bench import BenchReport, at_least, at_most, print_report
from weft.report.table import Table

__all__ = ["run"]

RECIPES = (
    "gpt.py:gpt_tiny",
    "llama3.py:llama_tiny",
    "moe.py:moe_tiny",
    "vit.py:vit_tiny",
    "resnet.py:resnet_tiny",
    "vgg.py:vgg_tiny",
)
WITH_DROPOUT = ("vgg.py:vgg_tiny",)
"""Torch drops out other elements than weft does, so only the pure step is comparable."""
EXPERTS: Mapping[int, Mapping[str, Mapping[str, Any]]] = {
    2: {
        "data": {"dp": 2},
        "tensor": {"tp": 2},
        "ZeRO-3": {"dp": 2, "fsdp": True},
        "tensor, sequence": {"tp": 2, "sp": True},
    },
    4: {
        "data": {"dp": 4},
        "tensor": {"tp": 4},
        "ZeRO-3": {"dp": 4, "fsdp": True},
        "ZeRO-3 x tensor, sequence": {"dp": 2, "tp": 2, "fsdp": True, "sp": True},
    },
}
MESHES = {2: (2,), 4: (2, 2)}
LIMIT_SINGLE = 1e-5
LIMIT_DOUBLE = 1e-10
LIMIT_PARAMETER = 1e-9
TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One recipe under one plan in one precision."""

    recipe: str
    num_ranks: int
    plan_name: str
    double: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How far a case is from one process.

    Attributes:
        copies: tensors that the plan wants in another sharding than they were made in.
        loss: largest relative difference of a step's loss.
        parameter: largest difference of a parameter or buffer after the last step.
    """

    copies: int
    loss: float
    parameter: float


def run(quick: bool = False) -> BenchReport:
    """Train everything everywhere and compare; `quick` does one model on two ranks, 5 steps."""
    steps = 5 if quick else 20
    recipes = RECIPES[:1] if quick else RECIPES
    ranks = (2,) if quick else tuple(EXPERTS)
    jobs = {n: _jobs(recipes, n, steps) for n in ranks}
    found: dict[Case, Finding] = {}
    for num_ranks in ranks:
        found |= _measure(jobs[num_ranks], num_ranks)
    doubles = [finding for case, finding in found.items() if case.double]
    single = worst(finding.loss for case, finding in found.items() if not case.double)
    double, parameter = worst(f.loss for f in doubles), worst(f.parameter for f in doubles)
    return BenchReport(
        bench="equality",
        claims=(
            at_most("largest relative difference of a loss, float32", single, LIMIT_SINGLE),
            at_most("largest relative difference of a loss, float64", double, LIMIT_DOUBLE),
            at_most("largest difference of a parameter, float64", parameter, LIMIT_PARAMETER),
            at_least("fewest different plans of a model on so many ranks", _variety(jobs), 4),
        ),
        table=Table(columns=COLUMNS, rows=_rows(found)),
        facts={"steps": steps, "ranks": list(ranks), "runs": len(found)},
    )


COLUMNS = (
    "model",
    "ranks",
    "plan",
    "copies",
    "loss, float32",
    "loss, float64",
    "parameters, float64",
)


def _rows(found: Mapping[Case, Finding]) -> tuple[tuple[str, ...], ...]:
    rows: list[tuple[str, ...]] = []
    for case, single in found.items():
        if case.double:
            continue
        double = found[replace(case, double=True)]
        rows.append(
            (
                case.recipe.partition(":")[2],
                str(case.num_ranks),
                case.plan_name,
                str(single.copies),
                f"{single.loss:.1e}",
                f"{double.loss:.1e}",
                f"{double.parameter:.1e}",
            )
        )
    return tuple(rows)


def _jobs(recipes: tuple[str, ...], num_ranks: int, steps: int) -> dict[Case, Job]:
    jobs: dict[Case, Job] = {}
    for recipe in recipes:
        for double in (False, True):
            program = program_of(recipe, double=double)
            for name, decided in plans_for(program, num_ranks).items():
                case = Case(recipe=recipe, num_ranks=num_ranks, plan_name=name, double=double)
                jobs[case] = Job(
                    recipe=recipe, double=double, plan=decided, steps=steps, keeps_state=True
                )
    return jobs


def _variety(jobs: Mapping[int, Mapping[Case, Job]]) -> int:
    """The search may find the same plan twice, or one that an expert wrote."""
    different: dict[tuple[str, int, bool], set[str]] = {}
    for num_ranks, cases in jobs.items():
        for case, job in cases.items():
            key = (case.recipe, num_ranks, case.double)
            different.setdefault(key, set()).add(plan_digest(_of_one_stage(job)))
    return min(map(len, different.values()))


def _of_one_stage(job: Job) -> ParallelPlan:
    assert isinstance(job.plan, ParallelPlan)
    return job.plan


def _measure(jobs: Mapping[Case, Job], num_ranks: int) -> dict[Case, Finding]:
    outcomes = run_jobs(tuple(jobs.values()), num_ranks, timeout_s=TIMEOUT_S)
    return {
        case: _compare(job, outcome, references(case.recipe, case.double, job.steps))
        for (case, job), outcome in zip(jobs.items(), outcomes, strict=True)
    }


def plans_for(program: Program, num_ranks: int) -> dict[str, ParallelPlan]:
    """Hand-written plans and two searched ones, the second with less memory than the first uses."""
    machine, mesh = slow_machine(num_ranks), MESHES[num_ranks]
    found = {
        name: expert_plan(program, machine, **degrees)
        for name, degrees in EXPERTS[num_ranks].items()
    }
    free = plan(program, machine, mesh=mesh, max_stages=1)
    leanest = min(decided.prediction.peak_bytes for decided in found.values())
    limit = max(0.7 * free.prediction.peak_bytes, 1.05 * leanest)
    tight = plan(program, machine, mesh=mesh, max_stages=1, memory_limit_bytes=limit)
    return {**found, "searched": free, "searched, less memory": tight}


@functools.cache
def references(recipe: str, double: bool, steps: int) -> tuple[Trace, ...]:
    """What one process learns: with weft's pure step and, where comparable, with plain torch."""
    workload = workload_of(recipe, double=double)
    pure = train_purely(workload, steps)
    return (pure,) if recipe in WITH_DROPOUT else (train_plainly(workload, steps), pure)


def _compare(job: Job, outcome: Outcome, traces: tuple[Trace, ...]) -> Finding:
    loss = worst(
        abs(here - there) / abs(there)
        for trace in traces
        for here, there in zip(outcome.losses, trace.losses, strict=True)
    )
    state = traces[0].state
    parameter = worst(_gap(outcome.state[name], tensor) for name, tensor in state.items())
    return Finding(copies=len(_of_one_stage(job).copies), loss=loss, parameter=parameter)


def _gap(here: Tensor, there: Tensor) -> float:
    return float((here - there).abs().max())


def worst(differences: Iterable[float]) -> float:
    """The largest, or NaN if one is NaN, which `max` would hide."""
    found = tuple(differences)
    return math.nan if any(map(math.isnan, found)) else max(found)


if __name__ == "__main__":
    print_report(run(quick="--quick" in sys.argv))
