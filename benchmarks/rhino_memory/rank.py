"""Memory of one rank while it starts: `python -m benchmarks.rhino_memory.rank CASE.json OUT.json`.

The rank is one of many of which the others do not exist: torch's fake process group stands in for
them. Deploying needs no data from others, so memory and values are those of a real start.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from pathlib import Path

import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from benchmarks.job import ROOT
from weft.capture import Workload, capture
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.plan_files import load_plan
from weft.runtime.allocator import keep_freed_memory
from weft.runtime.pipeline import deploy_pipeline
from weft.runtime.world import World

__all__ = ["llama"]


def llama(sizes: dict[str, int]) -> Workload:
    """A Llama of these sizes: master copies in float32, arithmetic in bfloat16."""
    sys.path.insert(0, str(ROOT / "recipes"))
    recipe = import_module("llama3")
    return recipe.llama3("llama", recipe.Config(**sizes), batch=16, lr=3e-4)


def main(case: Path, out: Path) -> None:
    about = json.loads(case.read_text())
    workload, plan = llama(about["sizes"]), load_plan(about["plan"])
    assert isinstance(plan, PipelinePlan)
    world = fake_world(about["rank"], plan.num_devices)
    program = capture(workload)
    before = status_bytes("VmRSS")
    # From here on, the most memory that is recorded is that of the start.
    Path("/proc/self/clear_refs").write_text("5")
    start = time.perf_counter()
    step = deploy_pipeline(plan, workload, world=world, program=program)
    found = {
        "seconds": time.perf_counter() - start,
        "peak_bytes": status_bytes("VmHWM") - before,
        "held_bytes": status_bytes("VmRSS") - before,
        "shard_bytes": sum(t.untyped_storage().nbytes() for t in locals_of(step.state())),
        "built_whole": step.built_whole,
    }
    out.write_text(json.dumps(found))


def fake_world(rank: int, size: int) -> World:
    """A world in which nobody answers and nobody needs to; memory is handled as in a real one."""
    keep_freed_memory()
    store = FakeStore()
    dist.init_process_group("fake", store=store, rank=rank, world_size=size)
    return World(rank=rank, size=size, device=torch.device("cpu"), store=store)


def locals_of(state: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """This rank's parts of DTensors."""
    return [t.to_local() for t in state.values()]  # pyright: ignore[reportAttributeAccessIssue]


def status_bytes(name: str) -> int:
    """A figure of memory of this process, as Linux counts it [bytes]."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
