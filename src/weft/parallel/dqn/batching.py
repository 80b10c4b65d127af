"""Automatic data parallelism: along which dims the inputs of a step are cut, variables whole.

Candidates are the inputs that are neither variables nor their state nor scalars: nobody says which
of their dims counts samples. A decision that makes data move, other than by reducing sums, is a
conflict and ends the episode; so what is found is the batch.

Source: Auto-MAP (Wang et al. 2020, arXiv 2007.04069), sections 3.1 and 4.1 (rewards).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import numpy as np

from weft.core.errors import InputError
from weft.parallel.dqn.deciding import CONFLICT_REWARD, CUT_REWARD, WHOLE_REWARD
from weft.parallel.dqn.environment import Observation, Turn
from weft.parallel.linkage import ReducedAxis, places_of
from weft.parallel.placement import REPLICATED, Placement
from weft.parallel.propagate import spread
from weft.program.graph import Program, Value

__all__ = ["BatchEnvironment", "candidates", "most_inputs"]

Option: TypeAlias = tuple[Placement, Mapping[Value, Placement], bool]
"""Where an input may lie, what else follows, and whether data would have to move."""
DIMS = 3
"""Dims of an input that an observation tells apart; later ones look alike."""


def candidates(program: Program) -> tuple[int, ...]:
    """Inputs of a step that might be cut: no variables, no state, no scalars."""
    return tuple(
        i.node
        for i in program.inputs
        if not i.role.is_persistent and program.nodes[i.node].outputs[0].shape
    )


class BatchEnvironment:
    """Episodes of decisions about the inputs of a step, one after the other.

    Args:
        program: the step.
        size: devices of the axis along which inputs are cut.

    Raises:
        InputError: the step has no such input.
        RuleError: no rule covers an operator.
    """

    shared_width = 4
    choice_width = DIMS + 5

    def __init__(self, program: Program, size: int) -> None:
        self.axis = ReducedAxis(program, size)
        self.candidates = candidates(program)
        if not self.candidates:
            raise InputError(
                need="an input that is neither a variable nor a scalar",
                got=f"{program.name}, which reads none",
                hint="a step that is trained on a batch",
            )
        whole = {Value(i.node): REPLICATED for i in program.inputs if i.role.is_persistent}
        self._given = {**whole, **spread(self.axis, whole).placements}
        self.placements: dict[int, Placement] = {}
        self._known: dict[Value, Placement] = {}
        self._offered: tuple[Option, ...] = ()
        self._options_after: dict[tuple[Placement, ...], tuple[Option, ...]] = {}

    def reset(self, generator: np.random.Generator) -> Observation:
        """Begin with nothing decided."""
        del generator  # nothing here is random
        self.placements, self._known = {}, dict(self._given)
        return self._observed()

    def step(self, choice: int) -> Turn:
        """Decide about one input."""
        place, new, conflicts = self._offered[choice]
        total = len(self.candidates)
        if conflicts:
            return Turn(CONFLICT_REWARD / total, None)
        self.placements[self._node] = place
        self._known |= new
        reward = (CUT_REWARD if place >= 0 else WHOLE_REWARD) / total
        over = len(self.placements) == total
        return Turn(reward, None if over else self._observed())

    @property
    def _node(self) -> int:
        """The input that is decided about next."""
        return self.candidates[len(self.placements)]

    def _observed(self) -> Observation:
        value, program = Value(self._node), self.axis.program
        decided = tuple(self.placements.values())
        found = self._options_after.get(decided)
        if found is None:
            found = self._options_after[decided] = tuple(self._options(value))
        self._offered = found
        shape = program.nodes[value.node].outputs[0].shape
        rows = [
            [
                place >= 0,
                *(place == dim for dim in range(DIMS)),
                math.log2(shape[place]) / 20 if place >= 0 else 0.0,
                len(new) / len(program.nodes),
                sum(p >= 0 for p in new.values()) / max(len(new), 1),
                conflicts,
            ]
            for place, new, conflicts in self._offered
        ]
        total, cut = len(self.candidates), sum(p >= 0 for p in self.placements.values())
        shared = [
            len(self.placements) / total,
            cut / total,
            math.log2(self.axis.size) / 10,
            len(shape) / 5,
        ]
        return Observation(
            shared=np.asarray(shared, dtype=np.float32),
            choices=np.asarray(rows, dtype=np.float32),
            allowed=np.ones(len(rows), dtype=np.bool_),
        )

    def _options(self, value: Value) -> Iterator[Option]:
        """Where an input may lie, what else follows, and whether data would have to move."""
        for place in places_of(self.axis, value.node):
            found = spread(self.axis, {value: place}, self._known, to_first_conflict=True)
            yield place, found.placements, bool(found.conflicts)


def most_inputs(environment: BatchEnvironment) -> dict[int, Placement]:
    """The most inputs that can be cut without a conflict, by looking at every way."""
    best: dict[int, Placement] = {}
    most = -1

    def extend(way: tuple[int, ...]) -> None:
        nonlocal best, most
        observation = environment.reset(np.random.default_rng(0))
        for choice in way:
            turn = environment.step(choice)
            if turn.observation is None:
                cut = sum(place >= 0 for place in environment.placements.values())
                if turn.reward > 0 and cut > most:
                    best, most = dict(environment.placements), cut
                return
            observation = turn.observation
        for choice in range(len(observation.allowed)):
            extend((*way, choice))

    extend(())
    return best
