"""Jobs: plans that local ranks run one after the other, for benchmarks to compare.

One launch of the ranks serves many jobs, because starting Python and torch takes longer than
a small job. `run_jobs` writes the jobs to a folder and starts `python -m benchmarks.job` on
every rank; rank 0 writes what came out next to them.
"""

from __future__ import annotations

import functools
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from weft.capture import Workload
from weft.parallel import ParallelPlan, load_plan, save_plan
from weft.workflow.recipe import load_workload

__all__ = ["Job", "Outcome", "in_double", "run_jobs", "workload_of"]

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A plan to run on local ranks.

    Attributes:
        name: for people, unique among the jobs of one launch.
        recipe: "gpt.py:gpt_tiny", a function of a file in recipes/.
        double: whether everything is computed in float64.
        plan: what to run; its mesh has as many devices as there are ranks.
        steps: how many steps.
        keeps_state: whether the final state is wanted as whole tensors.
    """

    name: str
    recipe: str
    double: bool
    plan: ParallelPlan
    steps: int
    keeps_state: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a job did: the loss and the time [s] of each step, and the final state if wanted."""

    losses: tuple[float, ...]
    seconds: tuple[float, ...]
    state: Mapping[str, Tensor]


def workload_of(recipe: str, *, double: bool) -> Workload:
    """A workload of recipes/, in double precision if wanted."""
    workload = load_workload(str(ROOT / "recipes" / recipe))
    return in_double(workload) if double else workload


def in_double(workload: Workload) -> Workload:
    """The same workload with parameters, buffers and data in float64; equal initial values."""
    return replace(
        workload,
        model=lambda: workload.model().double(),
        batch=lambda step: {
            key: entry.double() if entry.is_floating_point() else entry
            for key, entry in workload.batch(step).items()
        },
    )
