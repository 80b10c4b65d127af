"""Plans for unlike ranks on a real uneven cluster: `weft bench uneven-run`.

Four ranks of this host with unlike shares of its cores and unlike links, as cluster.yaml gives
them, are probed as a machine. Each model is planned for it and run there, in turns with even data
parallelism and, as a control, with even data parallelism once more. Losses are compared with one
process in float32. Factors of gradients are sent once where the planner sends them, and once
where it does not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from benchmarks.job import Job, Outcome, program_of, run_jobs, workload_of
from weft.capture import initial_state, make_step
from weft.core.errors import InputError
from weft.machine.model import Machine
from weft.parallel.experts import expert_plan
from weft.parallel.factors import paying_products
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.placement import Mesh
from weft.parallel.plan import ParallelPlan
from weft.parallel.planning import plan
from weft.report.bench import BenchReport, Claim, at_least, at_most
from weft.report.table import Table
from weft.runtime.cluster import Cluster, load_cluster, refusal
from weft.runtime.probe_cluster import probe_cluster
from weft.runtime.step import step_seed

__all__ = ["run"]

CLUSTER = Path(__file__).with_name("cluster.yaml")
RECIPES = {
    "GPT, 4.8 M": "gpt.py:gpt_demo",
    "MLP, 8,192 wide": "slow_ranks.py:mlp_of_2048",
    "ViT": "slow_ranks.py:vit_of_4096",
    "encoder-decoder": "slow_ranks.py:translator_of_512",
}
FACTORED = ("MLP, 64 rows", "mlp.py:mlp_wide")
"""Of few rows for each weight."""
STEPS, TURNS = 6, 5
FASTER, RELATIVE, NEAR = 1.5, 1e-5, 0.25
TIMEOUT_S = 1500.0

Plan = ParallelPlan | PipelinePlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A model under a plan.

    Attributes:
        model, name: which.
        plan: what ran.
        seconds: of each step [s].
        loss_off: largest relative difference of a loss from one process.
    """

    model: str
    name: str
    plan: Plan
    seconds: tuple[float, ...]
    loss_off: float

    @property
    def step_s(self) -> float:
        """The median step [s]."""
        return median(self.seconds)

    @property
    def error(self) -> float:
        """Relative difference of the prediction from the measurement."""
        return self.plan.prediction.step_s / self.step_s - 1


EVEN, CONTROL, PLANNED = "even data parallel", "the same again", "planned"
WITH, WITHOUT = "factors", "no factors"


def run(quick: bool = False) -> BenchReport:
    """Probe, plan, run and compare; `quick` takes two models and probes for a short time."""
    cluster = load_cluster(CLUSTER)
    reason = refusal(cluster)
    if reason:
        raise InputError(
            need="a host on which an uneven cluster of ranks can be made",
            got=reason,
            hint="run it as root on Linux with Debian's iproute2 installed",
        )
    load = os.getloadavg()[0]
    machine = probe_cluster(cluster, 30.0 if quick else 90.0)
    models = dict(list(RECIPES.items())[: 2 if quick else None])
    rows = [row for model in models for row in _measured(model, models[model], cluster, machine)]
    sent = _factors(cluster, machine)
    return BenchReport(
        bench="uneven-run",
        claims=_claims(rows, sent),
        table=_table([*rows, *sent]),
        facts={
            "rows": [_fact(row) for row in (*rows, *sent)],
            "devices": [group.device.name for group in machine.groups],
            "machine_notes": machine.notes,
            # Processes that others ran: figures from a busy host say little.
            "load_before": load,
        },
    )


def _measured(model: str, recipe: str, cluster: Cluster, machine: Machine) -> list[Row]:
    program = program_of(recipe)
    even = expert_plan(program, machine, dp=machine.num_devices)
    plans = {EVEN: even, PLANNED: plan(program, machine), CONTROL: even}
    return _ran(model, recipe, plans, cluster)


def _factors(cluster: Cluster, machine: Machine) -> list[Row]:
    """With and without factors, where the threshold says that they pay."""
    model, recipe = FACTORED
    program, count = program_of(recipe), machine.num_devices
    if not paying_products(program, machine, Mesh((count,))):
        return []
    plans: dict[str, Plan] = {
        WITHOUT: expert_plan(program, machine, dp=count),
        WITH: expert_plan(program, machine, dp=count, factors=True),
    }
    return _ran(model, recipe, plans, cluster)


def _ran(model: str, recipe: str, plans: Mapping[str, Plan], cluster: Cluster) -> list[Row]:
    """All plans in turns, there and back; the first step of each plan in a turn is left out."""
    order = [name for turn in range(TURNS) for name in list(plans)[:: -1 if turn % 2 else 1]]
    jobs = [Job(recipe=recipe, plan=plans[name], steps=STEPS) for name in order]
    outcomes = run_jobs(jobs, cluster.num_ranks, timeout_s=TIMEOUT_S, cluster=cluster)
    turns = {
        name: [done for own, done in zip(order, outcomes, strict=True) if own == name]
        for name in plans
    }
    expected = _one_process(recipe)
    return [
        Row(
            model=model,
            name=name,
            plan=own,
            seconds=tuple(s for done in turns[name] for s in done.seconds[1:]),
            loss_off=max(_off(done, expected) for done in turns[name]),
        )
        for name, own in plans.items()
    ]


def _one_process(recipe: str) -> list[float]:
    workload = workload_of(recipe)
    step, state = make_step(workload), initial_state(workload)
    losses: list[float] = []
    for number in range(STEPS):
        seed = torch.tensor(step_seed(workload.seed, number))
        loss, new = step(state, workload.batch(number), seed)
        state |= {name: tensor.detach() for name, tensor in new.items()}
        losses.append(float(loss))
    return losses


def _off(done: Outcome, expected: Sequence[float]) -> float:
    return max(abs(a / b - 1) for a, b in zip(done.losses, expected, strict=True))


def _claims(rows: Sequence[Row], sent: Sequence[Row]) -> tuple[Claim, ...]:
    by_name = {(row.model, row.name): row for row in rows}
    models = list(dict.fromkeys(row.model for row in rows))
    faster = [by_name[m, EVEN].step_s / by_name[m, PLANNED].step_s for m in models]
    again = [abs(by_name[m, EVEN].step_s / by_name[m, CONTROL].step_s - 1) for m in models]
    factors = {row.name: row.step_s for row in sent}
    return (
        at_least("even data parallel over planned, slowest model", min(faster), FASTER),
        at_most(
            "predicted from measured step of what was planned, farthest [share]",
            max(abs(by_name[m, PLANNED].error) for m in models),
            NEAR,
        ),
        at_most(
            "largest relative difference of a loss from one process, float32",
            max(row.loss_off for row in (*rows, *sent)),
            RELATIVE,
        ),
        at_least(
            "step without factors over step with them, where they are said to pay",
            factors[WITHOUT] / factors[WITH] if factors else 0.0,
            1.0,
        ),
        at_most("even data parallel from itself, farthest [share]", max(again), 0.1),
    )


def _words(own: Plan) -> str:
    if isinstance(own, PipelinePlan):
        return f"{own.groups_in_words}, {own.micro_batches} micro-batches"
    return f"mesh {own.mesh}"


def _fact(row: Row) -> dict[str, object]:
    return {
        "model": row.model,
        "plan": row.name,
        "mesh": _words(row.plan),
        "predicted_s": row.plan.prediction.step_s,
        "measured_s": row.step_s,
        "seconds": list(row.seconds),
        "loss_off": row.loss_off,
    }


def _table(rows: Sequence[Row]) -> Table:
    return Table(
        columns=("model", "plan", "", "predicted [s]", "measured [s]", "off", "loss off"),
        rows=tuple(
            (
                row.model,
                row.name,
                _words(row.plan),
                f"{row.plan.prediction.step_s:.3f}",
                f"{row.step_s:.3f}",
                f"{row.error:+.0%}",
                f"{row.loss_off:.0e}",
            )
            for row in rows
        ),
    )
