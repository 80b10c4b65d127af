"""One rank of a pipelined run; prints on rank 0, as JSON, how far it is from one process."""

from __future__ import annotations

import json
import sys

import torch

from benchmarks.job import program_of, workload_of
from weft.capture import initial_state, make_step
from weft.machine.presets import preset
from weft.parallel.pipeline.expert import pipeline_expert
from weft.runtime.deploy import deploy
from weft.runtime.step import step_seed
from weft.runtime.world import joined


def main(about: dict) -> None:
    recipe, steps = about.pop("recipe"), about.pop("steps")
    compiled = about.pop("compile", False)
    workload, program = workload_of(recipe, double=True), program_of(recipe, double=True)
    with joined(timeout_s=60) as world:
        plan = pipeline_expert(program, preset("dgx-h100x1"), **about)
        step = deploy(plan, workload, compile=compiled, world=world, program=program)
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
