"""What the pieces of a program cost, and what they cost as one stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from weft.machine.model import Machine
from weft.parallel.pipeline.estimate import StageCost, stage_cost
from weft.parallel.pipeline.in_pieces import Rows
from weft.parallel.pipeline.segments import segments
from weft.parallel.pipeline.stages import StageProgram
from weft.parallel.pipeline.timing import StageTime
from weft.parallel.plan import ParallelPlan
from weft.parallel.recompute import Expanded
from weft.parallel.spmd import lower_expanded

__all__ = ["joined", "piece_costs"]


def piece_costs(
    rows: Rows,
    planned: Callable[[StageProgram, Expanded], ParallelPlan],
    recomputation: str,
    machine: Machine,
    known: dict[object, StageCost] | None = None,
) -> list[StageCost]:
    """Cost of each piece of the whole program under a decision.

    Where layers run again as a whole, a piece that begins inside of one keeps nothing of what
    comes in: it does only where a stage begins there.

    Args:
        rows: the program of one micro-batch.
        planned: makes the plan of a piece, from what it computes, numbered as the piece is, and
            that with recomputation.
        recomputation: one of `weft.parallel.recompute.RECOMPUTATIONS`.
        machine: where they run.
        known: what pieces cost under other decisions on the same grid; what is found is added.
    """
    known = {} if known is None else known
    costs: list[StageCost] = []
    for piece, stage in enumerate(rows.stages):
        expanded = rows.expanded(piece, recomputation)
        plan = planned(stage, expanded)
        key = (rows.alike[piece], plan.strategies, plan.copies, plan.recompute)
        if key not in known:
            local = lower_expanded(expanded.program, plan)
            known[key] = stage_cost(stage, segments(stage, local), expanded, machine)
        costs.append(known[key])
    if recomputation == "full":
        for piece in range(1, len(costs)):
            if rows.pieces.inside[piece]:
                costs[piece] = _without(costs[piece], costs[piece - 1].forward.num_bytes)
    return [costs[piece] for piece in rows.pieces.order]


def _without(cost: StageCost, num_bytes: float) -> StageCost:
    """A piece that keeps so many bytes less, unless a stage begins with it."""
    kept = max(cost.time.kept_bytes - num_bytes, 0.0)
    return replace(
        cost,
        time=replace(cost.time, kept_bytes=kept),
        opening_bytes=cost.time.kept_bytes - kept,
    )


def joined(costs: Sequence[StageCost]) -> StageCost:
    """What pieces cost as one stage."""
    return StageCost(
        time=StageTime(
            forward_s=sum(c.time.forward_s for c in costs),
            inputs_s=sum(c.time.inputs_s for c in costs),
            weights_s=sum(c.time.weights_s for c in costs),
            kept_bytes=costs[0].opening_bytes + sum(c.time.kept_bytes for c in costs),
            waiting_bytes=sum(c.time.waiting_bytes for c in costs),
        ),
        setup_s=sum(c.setup_s for c in costs),
        survey_s=max(c.survey_s for c in costs),
        finish_s=sum(c.finish_s for c in costs),
        forward=costs[-1].forward,
        backward=costs[0].backward,
        state_bytes=sum(c.state_bytes for c in costs),
        setup_bytes=sum(c.setup_bytes for c in costs),
        sums_bytes=sum(c.sums_bytes for c in costs),
        transient_bytes=max(c.transient_bytes for c in costs),
        finish_bytes=sum(c.sums_bytes for c in costs)
        + max(c.finish_bytes - c.sums_bytes for c in costs),
    )
