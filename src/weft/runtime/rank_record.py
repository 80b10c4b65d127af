"""What each rank of a pipeline did, beside what was predicted of its group: records "rank".

One record for each rank at the end of a run: medians over its steps but the first, which pays for
warming up.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from weft.core.records import RecordLog
from weft.parallel.pipeline.plan import PipelinePlan
from weft.runtime.step import Trainable
from weft.runtime.world import gather_objects

__all__ = ["RankStep", "gather_rank_steps", "record_ranks"]


@dataclass(frozen=True, slots=True)
class RankStep:
    """One step of one rank.

    Attributes:
        step_s: from the batch to the loss [s].
        waited: share of the schedule in which it did nothing [0 to 1].
        exposed_s: time in which it only waited for collectives, or for what stages send each
            other once a step [s]; None of what is compiled.
    """

    step_s: float
    waited: float
    exposed_s: float | None


def gather_rank_steps(step: Trainable, step_s: float) -> list[RankStep] | None:
    """What each rank did in the last step, in order of rank; None without stages.

    Args:
        step: this rank's share.
        step_s: how long it took here [s].
    """
    if step.waited is None:
        return None
    return gather_objects(step.world, RankStep(step_s, step.waited, step.exposed_s))


def record_ranks(
    log: RecordLog,
    plan: PipelinePlan,
    steps: Sequence[Sequence[RankStep]],
    peak_bytes: Sequence[int],
) -> None:
    """Write a record for each rank.

    Args:
        log: where to.
        plan: what ran.
        steps: of each step, what each rank did.
        peak_bytes: most memory that each rank has used, as in the record of the end [bytes].
    """
    warm = steps[1:] if len(steps) > 1 else steps
    for rank, peak in enumerate(peak_bytes):
        group = plan.group_of(rank)
        own = [done[rank] for done in warm]
        exposed = [done.exposed_s for done in own if done.exposed_s is not None]
        log.append(
            "rank",
            rank=rank,
            group=group,
            stages=list(plan.stages_of(group)),
            steps=len(own),
            step_s=statistics.median(done.step_s for done in own),
            waited=statistics.median(done.waited for done in own),
            exposed_s=statistics.median(exposed) if exposed else None,
            peak_bytes=peak,
            predicted_step_s=plan.prediction.step_s,
            predicted_waited=plan.time.waiting(group),
            predicted_peak_bytes=plan.prediction.group_peak_bytes[group],
        )
