"""What was measured when a plan ran, and not when another did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from weft.core.errors import MismatchError
from weft.core.records import Record, read_records

if TYPE_CHECKING:
    from weft.parallel.pipeline.plan import PipelinePlan
    from weft.parallel.plan import ParallelPlan

__all__ = ["read_measurements"]


def read_measurements(path: Path, plan: ParallelPlan | PipelinePlan) -> tuple[Record, ...]:
    """Records of a plan's runs, in order.

    A file may hold several runs. Each begins with a record of kind "run", which names its plan;
    what belongs to other plans is left out.

    Raises:
        FileError: the file is missing or damaged.
        MismatchError: no run in the file is one of this plan.
    """
    from weft.parallel.plan_files import digest_of

    wanted = digest_of(plan)
    kept: list[Record] = []
    others: dict[str, None] = {}
    is_wanted = False
    for record in read_records(path):
        if record.kind == "run":
            digest = str(record.fields.get("plan_digest"))
            is_wanted = digest == wanted
            if not is_wanted:
                others[f"{record.fields.get('program')}, plan {digest}"] = None
        if is_wanted:
            kept.append(record)
    if not kept:
        raise MismatchError(
            need=f"records of a run of this plan: {plan.program_name}, plan {wanted}",
            got=f"{path} with runs of {'; '.join(others) or 'no plan'}",
            hint="run this plan with `weft run --plan ... --records FILE`",
        )
    return tuple(kept)
