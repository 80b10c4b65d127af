"""Pieces of a program with given costs, for programmes over stages."""

from __future__ import annotations

from weft.parallel.pipeline.estimate import Load, StageCost
from weft.parallel.pipeline.timing import StageTime


def piece(
    seconds: float,
    kept: float = 0.0,
    lasting: float = 0.0,
    *,
    sums: float = 0.0,
    transient: float = 0.0,
    finish: float = 0.0,
) -> StageCost:
    """A piece that takes so long for a micro-batch [s], and keeps so much of one [bytes]."""
    return StageCost(
        time=StageTime(
            forward_s=seconds / 3, inputs_s=seconds / 3, weights_s=seconds / 3, kept_bytes=kept
        ),
        setup_s=0.0,
        survey_s=0.0,
        finish_s=0.0,
        forward=Load(1, 1.0),
        backward=Load(1, 1.0),
        state_bytes=lasting,
        setup_bytes=0.0,
        sums_bytes=sums,
        transient_bytes=transient,
        finish_bytes=finish,
    )
