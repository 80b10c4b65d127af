"""One CUDA device: what it computes and how well its steps are predicted: `weft bench device`.

The device is probed as a machine of one rank. Tiny models train on it, the first also compiled
by Inductor, some also in micro-batches, and their losses are compared with a plain torch loop on
the CPU. Larger ones are
timed as the runtime emits them and compiled, and the median step is compared with what the
simulator says of devices that fuse.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch

from benchmarks.equality.one_process import train_plainly
from benchmarks.job import Job, TimedStep, program_of, run_jobs, workload_of
from weft.core.errors import InputError
from weft.machine import Machine
from weft.parallel.pipeline.expert import pipeline_expert
from weft.parallel.plan import ParallelPlan
from weft.parallel.planning import plan
from weft.report.bench import BenchReport, at_most, print_report
from weft.report.table import Table
from weft.runtime import probe

__all__ = ["run"]

log = logging.getLogger(__name__)

TINY = ("gpt.py:gpt_tiny", "llama3.py:llama_tiny", "moe.py:moe_tiny", "vit.py:vit_tiny")
IN_PARTS = ("gpt.py:gpt_tiny", "llama3.py:llama_tiny", "vit.py:vit_tiny")
PARTS = 4
TIMED = ("llama3.py:llama3_1b", "gpt.py:gpt_small", "moe.py:moe_small", "vgg.py:vgg19")
LOSS_STEPS = 10
TIMED_STEPS = 12
WARM_UP = 4
SINGLE = 1e-5
DOUBLE = 1e-10
MEDIAN_ERROR = 0.2
TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(TimedStep):
    """A model on the device, as the runtime emits it or compiled."""

    compiled: bool


def run(quick: bool = False) -> BenchReport:
    """Compare losses and step times; `quick` takes one model for each."""
    if not torch.cuda.is_available():
        raise InputError(need="a CUDA device", got="none on this host", hint="run it where one is")
    machine = probe(1, seconds=6.0 if quick else 20.0)
    tiny, timed = (TINY[:1], TIMED[:1]) if quick else (TINY, TIMED)
    rows = _timed(timed, machine)
    single = _loss_error(tiny, machine, double=False)
    double = _loss_error(tiny, machine, double=True)
    parts = _loss_of_parts_error(IN_PARTS[:1] if quick else IN_PARTS, machine)
    errors = [abs(row.error) for row in rows if row.compiled]
    return BenchReport(
        bench="device",
        device=torch.cuda.get_device_name(),
        claims=(
            at_most("loss against a CPU loop, float32 [relative]", single, SINGLE),
            at_most("loss against a CPU loop, float64 [relative]", double, DOUBLE),
            at_most("loss of micro-batches against a CPU loop, float64 [relative]", parts, DOUBLE),
            at_most("median error of compiled steps [share]", median(errors), MEDIAN_ERROR),
        ),
        table=_table(rows),
        facts={
            "steps": [
                {
                    "recipe": row.recipe,
                    "compiled": row.compiled,
                    "predicted_s": row.predicted_s,
                    "measured_s": row.measured_s,
                }
                for row in rows
            ],
        },
    )


def _plan(recipe: str, machine: Machine, *, double: bool = False) -> ParallelPlan:
    return plan(program_of(recipe, double=double), machine, mesh=(1,))


def _loss_error(recipes: Sequence[str], machine: Machine, *, double: bool) -> float:
    """Largest relative difference of any step's loss from plain torch on the CPU."""
    jobs = [
        Job(recipe=r, double=double, steps=LOSS_STEPS, plan=_plan(r, machine, double=double))
        for r in recipes
    ]
    if not double:
        jobs.append(replace(jobs[0], compile="inductor"))
    return _worst_loss(jobs)


def _loss_of_parts_error(recipes: Sequence[str], machine: Machine) -> float:
    """The same for steps in micro-batches, by the runtime of pipelines with one group."""
    return _worst_loss(
        [
            Job(
                recipe=recipe,
                double=True,
                steps=LOSS_STEPS,
                plan=pipeline_expert(
                    program_of(recipe, double=True), machine, pp=1, micro_batches=PARTS
                ),
            )
            for recipe in recipes
        ]
    )


def _worst_loss(jobs: Sequence[Job]) -> float:
    worst = 0.0
    for job, outcome in zip(jobs, run_jobs(jobs, 1, timeout_s=TIMEOUT_S), strict=True):
        wanted = train_plainly(workload_of(job.recipe, double=job.double), LOSS_STEPS).losses
        pairs = zip(outcome.losses, wanted, strict=True)
        worst = max(worst, *(abs(ours / theirs - 1) for ours, theirs in pairs))
    return worst


def _timed(recipes: Sequence[str], machine: Machine) -> list[Row]:
    """Predicted and measured steps of each recipe, eager and compiled."""
    rows: list[Row] = []
    for recipe in recipes:
        decided = _plan(recipe, machine)
        eager = Job(recipe=recipe, plan=decided, steps=TIMED_STEPS)
        jobs = (eager, replace(eager, compile="inductor"))
        rows += [
            Row(
                recipe=recipe,
                compiled=job.compile is not None,
                predicted_s=decided.prediction.step_s,
                measured_s=median(outcome.seconds[WARM_UP:]),
            )
            for job, outcome in zip(jobs, run_jobs(jobs, 1, timeout_s=TIMEOUT_S), strict=True)
        ]
        log.info("%s: %s", recipe, rows[-2:])
    return rows


def _table(rows: Sequence[Row]) -> Table:
    return Table(
        columns=("model", "run", "predicted [ms]", "measured [ms]", "error"),
        rows=tuple(
            (
                row.recipe.partition(":")[2],
                "compiled" if row.compiled else "eager",
                f"{row.predicted_s * 1e3:.1f}",
                f"{row.measured_s * 1e3:.1f}",
                f"{row.error:+.0%}",
            )
            for row in rows
        ),
    )


if __name__ == "__main__":
    print_report(run(quick="--quick" in sys.argv))
