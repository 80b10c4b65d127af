"""Running a parallel plan: the ranks, this rank's step, checkpoints, the training loop."""

from weft.runtime.checkpoint import load_checkpoint, save_checkpoint
from weft.runtime.deploy import assemble, deploy
from weft.runtime.failure import guard
from weft.runtime.launch import Launched, launch
from weft.runtime.probe import probe
from weft.runtime.step import Step, step_seed
from weft.runtime.train import Outcome, Schedule, StepDone, run_plan, train
from weft.runtime.world import World, alone, join, joined, leave

__all__ = [
    "Launched",
    "Outcome",
    "Schedule",
    "Step",
    "StepDone",
    "World",
    "alone",
    "assemble",
    "deploy",
    "guard",
    "join",
    "joined",
    "launch",
    "leave",
    "load_checkpoint",
    "probe",
    "run_plan",
    "save_checkpoint",
    "step_seed",
    "train",
]
