"""One rank of a planned step, compiled; prints on rank 0, as JSON, how it compares with an eager one.

Each rank counts the calls of weft's kernels; the fewest of any rank are printed.
"""

from __future__ import annotations

import json
import sys

from benchmarks.job import program_of, workload_of
from weft.fusion.kernel import Kernel
from weft.fusion.worth import Worth
from weft.machine.presets import preset
from weft.parallel.experts import expert_plan
from weft.parallel.pipeline.expert import pipeline_expert
from weft.runtime.deploy import deploy
from weft.runtime.world import gather_objects, joined

STEPS = 3


def main(about: dict) -> None:
    recipe, degrees = about["recipe"], about["degrees"]
    workload, program = workload_of(recipe), program_of(recipe)
    make = pipeline_expert if "pp" in degrees else expert_plan
    called = 0
    run = Kernel.__call__

    def counted(kernel, inputs):
        nonlocal called
        called += 1
        return run(kernel, inputs)

    Kernel.__call__ = counted
    Worth.loss = ""  # regions of so small a model gain nothing
    with joined(timeout_s=240) as world:
        plan = make(program, preset("dgx-h100x1"), **degrees)
        losses, states = [], []
        for compiler in (None, "weft"):
            step = deploy(plan, workload, compile=compiler, world=world, program=program)
            losses.append([float(step(workload.batch(number))) for number in range(STEPS)])
            states.append(step.full_state())
            if compiler is None:
                assert not called
        calls = gather_objects(world, called)
        if world.is_first:
            eager, ours = states
            found = {
                "loss": max(abs(a / b - 1) for a, b in zip(*losses, strict=True)),
                "state": max(float((ours[name] - eager[name]).abs().max()) for name in eager),
                "calls": min(calls),
            }
            print(json.dumps(found))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
