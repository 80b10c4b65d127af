"""One rank of a pipelined run with checkpoints; may end itself in the middle of a step."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from benchmarks.job import program_of, workload_of
from weft.machine.presets import preset
from weft.parallel.experts import expert_plan
from weft.parallel.pipeline.expert import pipeline_expert
from weft.parallel.pipeline.segments import Part
from weft.runtime.stage import StageRun
from weft.runtime.train import Schedule, run_plan

RECIPE = "translator.py:translator_tiny"


def main(about: dict) -> None:
    program = program_of(RECIPE)
    make = pipeline_expert if "pp" in about["degrees"] else expert_plan
    plan = make(program, preset("dgx-h100x1"), **about["degrees"])
    if about.get("dies_in") is not None and os.environ["RANK"] == "1":
        die_in(about["dies_in"])
    schedule = Schedule(
        steps=about["steps"],
        checkpoints=Path(about["folder"]),
        checkpoint_every=1,
        resume=about["resume"],
    )
    outcome = run_plan(plan, workload_of(RECIPE), schedule, program=program, timeout_s=60)
    if os.environ["RANK"] == "0":
        print(json.dumps([(done.step, done.loss) for done in outcome.done]))


def die_in(step: int) -> None:
    """End this process like `kill -9`, between the parts of a micro-batch's backward pass."""
    repeat, seen = StageRun.repeat, [0]

    def counted(self, part, micro_batch):
        if part is Part.INPUTS and micro_batch == 1:
            seen[0] += 1
            if seen[0] == step + 1:
                os.kill(os.getpid(), signal.SIGKILL)
        repeat(self, part, micro_batch)

    StageRun.repeat = counted


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
