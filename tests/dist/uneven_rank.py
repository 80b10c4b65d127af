"""One rank of a run on unlike devices; prints as JSON how far it is from one process."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.job import program_of, workload_of
from tests.dist.pipeline_rank import compared
from tests.homed import uneven_plan
from weft.runtime.checkpoint import load_checkpoint, save_checkpoint
from weft.runtime.deploy import deploy
from weft.runtime.world import joined


def main(about: dict) -> None:
    recipe, steps = about["recipe"], about["steps"]
    workload, program = workload_of(recipe, double=True), program_of(recipe, double=True)
    with joined(timeout_s=60) as world:
        plan = uneven_plan(program, **about["plan"])
        step = deploy(plan, workload, compile=about.get("compile"), world=world, program=program)
        losses = [float(step(workload.batch(number))) for number in range(steps - 1)]
        if "folder" in about:
            folder = Path(about["folder"])
            save_checkpoint(folder, step)
            step = deploy(plan, workload, world=world, program=program)
            assert load_checkpoint(folder, step) is not None
        losses.append(float(step(workload.batch(steps - 1))))
        state = step.full_state()
        if world.is_first:
            print(json.dumps(compared(workload, losses, state)))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
