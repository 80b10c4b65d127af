"""Plans of pipelines as files: versioned JSON around the plans of the stages."""

from __future__ import annotations

from dataclasses import asdict, fields
from itertools import chain
from typing import Any, cast

from weft.core.digest import canonical_json, digest
from weft.core.errors import FileError, InputError
from weft.parallel.pipeline.cut import Cut
from weft.parallel.pipeline.plan import PipelinePlan, PipelinePrediction
from weft.parallel.pipeline.timing import StageTime
from weft.parallel.reading import count_reader, list_reader, read_amount
from weft.parallel.serialize import (
    content_of,
    plan_digest,
    plan_from_plain,
    plan_to_plain,
    search_from_plain,
    search_to_plain,
)

__all__ = ["KEY", "pipeline_digest", "pipeline_from_json", "pipeline_to_json"]

VERSION, OF_STANDINGS = 2, 3
"""Versions of the file format; a file of a newer version is refused. The second is that of plans
whose groups do not follow each other as ranks do, which older readers would not notice."""

KEY = "weft_pipeline_plan"
"""First key of such a file, which tells it from that of a plan of one stage."""


def pipeline_digest(plan: PipelinePlan) -> str:
    """Content digest of what the plan decides."""
    return digest(
        [
            plan.program_digest,
            plan.micro_batches,
            plan.schedule,
            plan.num_groups,
            [list(run) for run in plan.cut.runs],
            [plan_digest(stage) for stage in plan.plans],
            # In the order of ranks the digest is that of before there was another.
            *([] if plan.is_in_rank_order else [list(plan.standing)]),
        ]
    )


def pipeline_to_json(plan: PipelinePlan) -> str:
    """Text of a plan file, with a checksum of its content."""
    raw = {
        "program": [plan.program_name, plan.program_digest],
        "machine": [plan.machine_name, plan.machine_digest],
        "micro_batches": plan.micro_batches,
        "schedule": plan.schedule,
        "num_groups": plan.num_groups,
        "cut": [list(run) for run in plan.cut.runs],
        "plans": [plan_to_plain(stage) for stage in plan.plans],
        "memory_limit_bytes": plan.memory_limit_bytes,
        "prediction": asdict(plan.prediction),
        **search_to_plain(plan),
        **({} if plan.is_in_rank_order else {"standing": list(plan.standing)}),
        **(
            {"group_limits_bytes": list(plan.group_limits_bytes)} if plan.group_limits_bytes else {}
        ),
    }
    # The key comes first, which tells the two kinds of plan files apart.
    body = canonical_json({"checksum": digest(raw), "plan": raw})
    return f'{{"{KEY}":{VERSION if plan.is_in_rank_order else OF_STANDINGS},{body[1:]}'


def pipeline_from_json(text: str) -> PipelinePlan:
    """Inverse of `pipeline_to_json`.

    Raises:
        FileError: the text is no plan, is damaged, or comes from a newer weft.
    """
    return _read(cast("dict[str, Any]", content_of(text, KEY, VERSION, OF_STANDINGS)))


def _read(raw: dict[str, Any]) -> PipelinePlan:
    """The plan; a checksum that holds does not tell that the fields are all there."""
    try:
        (name, program), (machine, machine_digest) = raw["program"], raw["machine"]
        runs = tuple((node, stage) for node, stage in raw["cut"])
        whole = (raw["micro_batches"], raw["num_groups"], *chain.from_iterable(runs))
        if not all(type(number) is int for number in whole):
            raise TypeError(f"whole numbers, not {whole}")
        return PipelinePlan(
            program_name=str(name),
            program_digest=str(program),
            machine_name=str(machine),
            machine_digest=str(machine_digest),
            micro_batches=raw["micro_batches"],
            schedule=str(raw["schedule"]),
            num_groups=raw["num_groups"],
            cut=Cut(runs),
            plans=tuple(plan_from_plain(stage) for stage in raw["plans"]),
            memory_limit_bytes=float(raw["memory_limit_bytes"]),
            prediction=_prediction(raw["prediction"]),
            standing=list_reader(count_reader(0))(raw.get("standing", []), "standing"),
            group_limits_bytes=list_reader(read_amount)(
                raw.get("group_limits_bytes", []), "group_limits_bytes"
            ),
            **search_from_plain(raw),
        )
    except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
        raise FileError(
            need="the fields of a pipeline's plan",
            got=f"{type(error).__name__}: {error}"[:200],
            hint="the file was not written by weft, or was edited; plan again",
        ) from error


def _prediction(raw: dict[str, Any]) -> PipelinePrediction:
    def each(name: str) -> tuple[float, ...]:
        return tuple(float(item) for item in cast("list[float]", raw[name]))

    return PipelinePrediction(
        step_s=float(raw["step_s"]),
        pipeline_s=float(raw["pipeline_s"]),
        bubble=float(raw["bubble"]),
        group_peak_bytes=each("group_peak_bytes"),
        bound_s=float(raw["bound_s"]),
        stages=tuple(
            StageTime(**{name: float(stage[name]) for name in _STAGE_TIME})
            for stage in cast("list[dict[str, Any]]", raw["stages"])
        ),
    )


_STAGE_TIME = tuple(field.name for field in fields(StageTime))
