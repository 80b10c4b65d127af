"""One rank of a run whose latents differ from rank to rank; prints the plans that all ranks took."""

from __future__ import annotations

import json
import sys

import torch.distributed as dist

from benchmarks.denoise_matrix.pipelines import PIPELINES
from weft.diffusion import MixCache, accelerate, report
from weft.diffusion.learning import Learning
from weft.runtime.world import gather_objects, joined

BOUNDS = (0.0, 10.0)


def main(together: bool, learns: bool) -> None:
    with joined(timeout_s=60) as world:
        run = PIPELINES["Wan 2.1"].build(16)
        accelerate(
            run.pipe,
            policy=Learning(target_speedup=1.5)
            if learns
            else MixCache(warm_up=0.2, bounds=BOUNDS, penalty=1.0),
            group=dist.group.WORLD if together else None,
        )
        with report(run.pipe) as found:
            for _ in range(2 if learns else 1):
                run(seed=world.rank)
        plans = gather_objects(world, found.runs[-1].plan.to_json())
        distances = gather_objects(world, dict(found.runs[0].steps[4].distances))
        if world.is_first:
            print(json.dumps({"plans": plans, "distances": distances}))


if __name__ == "__main__":
    main(sys.argv[1] == "together", sys.argv[2] == "learns")
