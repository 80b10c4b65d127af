"""One of two ranks that share runs: `torchrun -m benchmarks.denoise_matrix.shared STEPS FILE`.

Every pipeline runs under each policy that decides by what it sees: with the same noise on both
ranks, which has to give one plan and the bits that one rank alone makes; and with other noise on
each, as if ranks saw different parts of a run, which has to give one plan as well, and on each rank
what that plan makes without the other. The first rank writes what did not hold.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchmarks.denoise_matrix.pipelines import PIPELINES, Built
from benchmarks.denoise_matrix.policies import SPEEDUP, TAU
from weft.diffusion import DenoisePlan, MixCache, Mixed, Sketch, accelerate, report, restore
from weft.diffusion.learning import Learning
from weft.diffusion.policy import Policy
from weft.runtime.world import World, gather_objects, joined

__all__ = ["POLICIES", "Found", "main"]

TIMEOUT_S = 30.0
"""That a rank waits for the other, which computes the same within a second, before it gives up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """A policy that is made anew for every pipeline.

    Attributes:
        make: it.
        has_small: whether there is a small model beside the pipeline's own.
        runs: of which the last one counts.
    """

    make: Callable[[], Policy]
    has_small: bool = False
    runs: int = 1


@dataclass(slots=True, kw_only=True)
class Found:
    """What two ranks found.

    Attributes:
        runs: that they shared.
        wrong: those on which they do not agree.
        running: the one under way, which stays where ranks wait for each other in vain.
    """

    runs: int = 0
    wrong: list[str] = field(default_factory=list[str])
    running: str = ""


POLICIES: Mapping[str, _Shared] = {
    "MixCache": _Shared(make=MixCache),
    "SRDiffusion, MixCache": _Shared(make=partial(Sketch, then=MixCache()), has_small=True),
    "MDD": _Shared(make=partial(Mixed, tau=TAU), has_small=True),
    "learnt": _Shared(make=partial(Learning, target_speedup=SPEEDUP), runs=2),
}


def main(steps: int, path: Path) -> None:
    """Run everything on this rank, and have the first one write what did not hold."""
    done = Found()
    with joined(timeout_s=TIMEOUT_S, device="cpu") as world:
        for name, kind in PIPELINES.items():
            built, small = kind.build(steps), kind.relative()
            for policy, shared in POLICIES.items():
                for is_same in (True, False):
                    done.running = f"{name}, {policy}, {'one' if is_same else 'other'} noise"
                    if world.is_first:
                        path.write_text(json.dumps(asdict(done)))
                    done.runs += 1
                    if not _agree(world, built, small, shared, is_same=is_same):
                        done.wrong.append(done.running)
        done.running = ""
        if world.is_first:
            path.write_text(json.dumps(asdict(done)))


def _agree(world: World, built: Built, small: nn.Module, shared: _Shared, *, is_same: bool) -> bool:
    """Whether both ranks take one plan, and make what it makes without the other rank."""
    given = small if shared.has_small else None
    seed = 0 if is_same else world.rank
    made, plan = _ran(built, shared.make(), given, seed, shared.runs, dist.group.WORLD)
    own: Policy | DenoisePlan = shared.make() if is_same else plan
    alone, other = _ran(built, own, given, seed, shared.runs if is_same else 1, None)
    is_own = torch.equal(made, alone) and plan.steps == other.steps
    every = gather_objects(world, (plan.to_json(), made.numpy().tobytes() if is_same else b""))
    return all(gather_objects(world, is_own)) and len(set(every)) == 1


def _ran(
    built: Built,
    policy: Policy | DenoisePlan,
    small: nn.Module | None,
    seed: int,
    runs: int,
    group: dist.ProcessGroup | None,
) -> tuple[Tensor, DenoisePlan]:
    accelerate(built.pipe, policy=policy, sketch_to=small, group=group)
    try:
        with report(built.pipe) as found:
            made = [built(seed=seed) for _ in range(runs)]
    finally:
        restore(built.pipe)
    return made[-1], found.runs[-1].plan


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
