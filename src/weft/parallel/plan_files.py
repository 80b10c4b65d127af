"""Files of plans of either kind: of one stage, or of a pipeline."""

from __future__ import annotations

from pathlib import Path

from weft.core import files
from weft.parallel import serialize
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.pipeline.serialize import (
    KEY,
    pipeline_digest,
    pipeline_from_json,
    pipeline_to_json,
)
from weft.parallel.plan import ParallelPlan

__all__ = ["digest_of", "load_plan", "save_plan"]


def digest_of(plan: ParallelPlan | PipelinePlan) -> str:
    """Content digest of what a plan decides, as records and checkpoints name it."""
    if isinstance(plan, ParallelPlan):
        return serialize.plan_digest(plan)
    return pipeline_digest(plan)


def save_plan(plan: ParallelPlan | PipelinePlan, path: str | Path) -> None:
    """Write a plan; the file appears whole or not at all.

    Raises:
        FileError: the file cannot be written.
    """
    if isinstance(plan, ParallelPlan):
        serialize.save_plan(plan, path)
    else:
        files.write_whole(path, pipeline_to_json(plan) + "\n", "a plan")


def load_plan(path: str | Path) -> ParallelPlan | PipelinePlan:
    """Read a plan.

    Raises:
        FileError: the file is missing, is no plan, is damaged, or comes from a newer weft.
    """

    def parsed(text: str) -> ParallelPlan | PipelinePlan:
        return pipeline_from_json(text) if KEY in text[:200] else serialize.plan_from_json(text)

    hint = "make one with `weft plan` or `weft score -o`"
    return files.read_as(path, parsed, "a plan file", hint)
