"""What the stages of a pipeline run again in the backward pass, piece by piece."""

from __future__ import annotations

from dataclasses import dataclass

from weft.parallel.pipeline.cut import Cut
from weft.parallel.pipeline.stages import StageProgram
from weft.parallel.recompute import RECOMPUTATIONS

__all__ = ["MIXTURES", "Recompute", "run_again"]

MIXTURES = ((0, 1), (0, 2), (1, 2))
"""Options of recomputation that a stage mixes, the lesser first: nothing 0, cheap 1, full 2."""


@dataclass(frozen=True, slots=True)
class Recompute:
    """The first `more` pieces of a stage follow option `greater`, the others `lesser`."""

    lesser: int
    greater: int
    more: int

    def option(self, position: int) -> int:
        """Option of the piece at a position within the stage."""
        return self.greater if position < self.more else self.lesser


def run_again(stage: StageProgram, pieces: Cut, first: int, again: Recompute) -> tuple[int, ...]:
    """Nodes of a stage that run again.

    Args:
        stage: what it computes.
        pieces: the program of one micro-batch, cut into its pieces.
        first: number of the stage's first piece.
        again: what it recomputes.
    """
    wanted = {
        option: set(choose(stage.program))
        for option, choose in enumerate(RECOMPUTATIONS.values())
        if option in (again.lesser, again.greater)
    }
    chosen: list[int] = []
    for number, origin in enumerate(stage.origin):
        # What other stages make and this one hands on, or makes for itself, is not run again.
        position = -1 if origin is None else pieces.stage_at(origin.node) - first
        own = position >= 0 and stage.program.nodes[number].op != "send"
        if own and number in wanted[again.option(position)]:
            chosen.append(number)
    return tuple(chosen)
