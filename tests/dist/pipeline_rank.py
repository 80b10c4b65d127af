"""One rank of a pipelined run; prints on rank 0, as JSON, how far it is from one process."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace

import torch

from benchmarks.job import program_of, workload_of
from weft.capture import AdamW, capture, initial_state, make_step
from weft.capture.position import at
from weft.machine.presets import preset
from weft.parallel.degrees import Degrees
from weft.parallel.estimate import slowest_device
from weft.parallel.experts import plan_by_degrees
from weft.parallel.pinning import resolve
from weft.parallel.pipeline.expert import even_cuts, pipeline_expert, pipeline_of_stages
from weft.parallel.pipeline.microbatch import in_micro_batches
from weft.program.graph import Phase
from weft.runtime.deploy import deploy
from weft.runtime.step import step_seed
from weft.runtime.world import joined


def with_rows(batch, rows):
    """Batches of so many rows, the first ones again where there are fewer."""
    return lambda step: {
        key: entry[torch.arange(rows) % len(entry)] for key, entry in batch(step).items()
    }


@dataclass(frozen=True, kw_only=True)
class Clipped(AdamW):
    """Gradients whose norm over all parameters is too large are scaled down together."""

    max_norm: float

    def update(self, gradients, state, parameters):
        with at(Phase.UPDATE, "clip"):
            norm = sum(gradient.square().sum() for gradient in gradients.values()).sqrt()
            scale = (self.max_norm / (norm + 1e-6)).clamp(max=1.0)
            scaled = {name: gradient * scale for name, gradient in gradients.items()}
        return AdamW.update(self, scaled, state, parameters)


def main(about: dict) -> None:
    recipe, steps, norm = about.pop("recipe"), about.pop("steps"), about.pop("clip", 0.0)
    compiled = about.pop("compile", None)
    workload, program = workload_of(recipe, double=True), program_of(recipe, double=True)
    rows = about.pop("rows", 0)
    if norm:
        workload = replace(workload, optimizer=Clipped(lr=1e-2, max_norm=norm))
    if rows:
        workload = replace(workload, batch=with_rows(workload.batch, rows))
    if norm or rows:
        program = capture(workload)
    with joined(timeout_s=60) as world:
        make = pipeline_by_chunk if "by_chunk" in about else pipeline_expert
        plan = make(program, preset("dgx-h100x1"), **about)
        step = deploy(plan, workload, compile=compiled, world=world, program=program)
        losses = [float(step(workload.batch(number))) for number in range(steps)]
        state = step.full_state()
        if world.is_first:
            print(json.dumps(compared(workload, losses, state)))


def pipeline_by_chunk(program, machine, *, pp, by_chunk, micro_batches, schedule):
    """The pipeline in which the stages of a group have degrees of their own."""
    degrees = [Degrees.named(**names) for names in by_chunk for _ in range(pp)]
    part = in_micro_batches(program, micro_batches)
    cuts = even_cuts(part, slowest_device(machine), [1.0] * len(degrees))

    def written(stage):
        return plan_by_degrees(stage.program, machine, degrees[stage.number], resolve(part))

    return pipeline_of_stages(
        program,
        machine,
        cut=cuts,
        num_groups=pp,
        micro_batches=micro_batches,
        schedule=schedule,
        written=written,
        kind=lambda stage: degrees[stage],
    )


def tell(world, workload, step, steps):
    """Run some steps; rank 0 prints how far they are from one process."""
    losses = [float(step(workload.batch(number))) for number in range(steps)]
    state = step.full_state()
    if world.is_first:
        print(json.dumps(compared(workload, losses, state)))


def compared(workload, losses, state) -> dict[str, float]:
    run, own = make_step(workload), initial_state(workload)
    worst = 0.0
    for number, loss in enumerate(losses):
        seed = torch.tensor(step_seed(workload.seed, number))
        expected, new = run(own, workload.batch(number), seed)
        own |= {name: tensor.detach() for name, tensor in new.items()}
        worst = max(worst, abs(loss / float(expected) - 1))
    # The second moment of AdamW is a gradient's square: relative errors of gradients, doubled.
    moments = [name for name in own if "optimizer.step" not in name and name in state]
    return {
        "loss": worst,
        "state": max(float((state[n] - own[n]).abs().max()) for n in moments),
        "entries": len(moments),
        "missing": len(set(own) - set(state)),
    }


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
