"""One rank of a run with fused weights; prints on rank 0, as JSON, how far it is from one process.

Trains under one plan, saves, and reads the checkpoint into the same plan and into another one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch.distributed.checkpoint import FileSystemReader

from benchmarks.job import program_of, workload_of
from weft.capture import initial_state, make_step
from weft.machine.presets import preset
from weft.parallel.experts import expert_plan
from weft.runtime.checkpoint import load_checkpoint, save_checkpoint
from weft.runtime.deploy import deploy
from weft.runtime.step import step_seed
from weft.runtime.world import joined

STEPS = 4


def main(about: dict) -> None:
    recipe, folder = about["recipe"], Path(about["folder"])
    workload, program = workload_of(recipe, double=True), program_of(recipe, double=True)
    with joined(timeout_s=60) as world:

        def deployed(degrees):
            plan = expert_plan(program, preset("dgx-h100x1"), **degrees)
            return deploy(plan, workload, world=world, program=program)

        step = deployed(about["degrees"])
        losses = [float(step(workload.batch(number))) for number in range(STEPS)]
        state = step.full_state()
        save_checkpoint(folder, step)
        reloaded = []
        for degrees in (about["degrees"], about["other"]):
            fresh = deployed(degrees)
            load_checkpoint(folder, fresh)
            reloaded.append(fresh.full_state())
        if world.is_first:
            print(json.dumps(compared(workload, losses, state, reloaded, folder)))


def compared(workload, losses, state, reloaded, folder) -> dict[str, object]:
    run, own = make_step(workload), initial_state(workload)
    worst = 0.0
    for number, loss in enumerate(losses):
        seed = torch.tensor(step_seed(workload.seed, number))
        expected, own = run(own, workload.batch(number), seed)
        worst = max(worst, abs(loss / float(expected) - 1))
    (data,) = folder.glob("step-*/data")
    stored = FileSystemReader(data).read_metadata().state_dict_metadata
    return {
        "loss": worst,
        "state": max(float((state[name] - own[name]).abs().max()) for name in own),
        "same shapes": all(state[name].shape == own[name].shape for name in own),
        "stored shapes": all(stored[name].size == own[name].shape for name in own),
        "reloaded": all(torch.equal(s[name], state[name]) for s in reloaded for name in own),
    }


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
