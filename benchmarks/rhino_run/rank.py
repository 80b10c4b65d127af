"""One rank of a pipelined run: `python -m benchmarks.rhino_run.rank CASE.json OUT.json`.

Rank 0 writes how the run compares with one process on the same batches, and the share of the
schedule in which each rank waited.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from benchmarks.job import workload_of
from weft.capture import SGD, Workload, capture, initial_state, make_step
from weft.parallel.pipeline.serialize import pipeline_from_json
from weft.runtime.pipeline import PipelineStep, deploy_pipeline
from weft.runtime.step import step_seed
from weft.runtime.world import World, gather_objects, joined

__all__ = ["workload_for"]

WARM_UP = 2


def workload_for(recipe: str, *, plain: bool) -> Workload:
    """The recipe; with `plain` its optimizer is SGD with momentum, whose state is gradients."""
    workload = workload_of(recipe)
    return replace(workload, optimizer=SGD(lr=1e-2, momentum=0.9)) if plain else workload


def main(case: Path, out: Path) -> None:
    about = json.loads(case.read_text())
    workload = workload_for(about["recipe"], plain=about["plain"])
    with joined(timeout_s=120.0) as world:
        plan = pipeline_from_json(about["plan"])
        step = deploy_pipeline(plan, workload, world=world, program=capture(workload))
        losses, waited = trained(step, workload, world, about["steps"])
        state = step.full_state() if about["plain"] else {}
        if world.is_first:
            found = compared(workload, losses, state) if about["plain"] else {}
            out.write_text(json.dumps({**found, "waited": waited}))


def trained(
    step: PipelineStep, workload: Workload, world: World, steps: int
) -> tuple[list[float], float]:
    """Losses, and the median over steps of the mean share of time in which ranks waited."""
    losses: list[float] = []
    waits: list[float] = []
    for number in range(steps):
        losses.append(float(step(workload.batch(number))))
        shares = gather_objects(world, step.waited or 0.0)
        waits.append(sum(shares) / len(shares))
    return losses, median(waits[WARM_UP:] or waits)


def compared(workload: Workload, losses: list[float], state: dict[str, Tensor]) -> dict[str, float]:
    """Largest relative difference of a loss, and of a momentum buffer in its own largest entry."""
    run, own = make_step(workload), initial_state(workload)
    loss_off = 0.0
    for number, loss in enumerate(losses):
        seed = torch.tensor(step_seed(workload.seed, number))
        expected, new = run(own, workload.batch(number), seed)
        own |= {name: tensor.detach() for name, tensor in new.items()}
        loss_off = max(loss_off, abs(loss / float(expected) - 1))
    largest = max(float(own[name].abs().max()) for name in own if name.startswith("optimizer."))
    off = max(
        float((state[name] - own[name]).abs().max())
        / max(float(own[name].abs().max()), EPS * largest)
        for name in own
        if name.startswith("optimizer.") and own[name].is_floating_point()
    )
    return {"loss": loss_off, "gradient": off}


EPS = 1e-3
"""Gradients that are zero but for rounding (of a bias of keys) are compared with the largest."""

if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
