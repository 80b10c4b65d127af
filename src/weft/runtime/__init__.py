"""Running a parallel plan: the ranks, this rank's step, checkpoints, the training loop."""

from weft.runtime.deploy import assemble, deploy
from weft.runtime.failure import guard
from weft.runtime.step import Step, step_seed
from weft.runtime.world import World, alone, join, joined, leave

__all__ = [
    "Step",
    "World",
    "alone",
    "assemble",
    "deploy",
    "guard",
    "join",
    "joined",
    "leave",
    "step_seed",
]
