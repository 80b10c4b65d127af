"""One rank of a run of a searched pipeline; prints on rank 0 how far it is from one process."""

from __future__ import annotations

import json
import sys

from benchmarks.job import program_of, workload_of
from tests.dist.pipeline_rank import tell
from tests.searched import searched, searched_unequal, staged
from weft.parallel.exact.pipelines.configs import Config
from weft.runtime.deploy import deploy
from weft.runtime.world import joined


def main(about: dict) -> None:
    recipe, steps = about["recipe"], about["steps"]
    workload, program = workload_of(recipe, double=True), program_of(recipe, double=True)
    with joined(timeout_s=60) as world:
        if "grids" in about:
            plan = searched_unequal(program, about["grids"], about["micro_batches"])
        elif "inside" in about:
            inside, standing = about["inside"], about["standing"]
            plan = staged(program, inside, standing, about["micro_batches"], about["schedule"])
        else:
            plan = searched(program, Config(**about["config"]), about["schedule"])
        step = deploy(plan, workload, world=world, program=program)
        tell(world, workload, step, steps)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
