"""Automatic data parallelism on the paper's models: which inputs of a step are cut, and along what.

The agent is told nothing of what an input is for. The exact search looks at every way.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.automap.models import DEVICES, RECIPES
from benchmarks.job import program_of
from weft.parallel.dqn.agent import Agent, AgentSettings
from weft.parallel.dqn.batching import BatchEnvironment, most_inputs
from weft.parallel.dqn.deciding import CUT_REWARD
from weft.parallel.placement import Placement
from weft.program.graph import Role
from weft.report.bench import Claim, at_most, exactly

__all__ = ["CutBatch", "batch_claims", "batch_row", "cut_batches"]

MODELS = {"T5-base": RECIPES["T5-base"], "VGG-19": "vgg.py:vgg19"}
PUBLISHED = {"T5-base": ("7 of 10", "0.27 h"), "VGG-19": ("2 of 4", "70 s")}
"""Inputs that are cut, of all candidates, and the time that it took. Source: Auto-MAP, table 6."""
LEARNING = AgentSettings(
    returns=(-1.0, CUT_REWARD), explore=(1.0, 0.05, 100), least=32, batch=32, width=32
)
EPISODES, MOST_S = 200, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CutBatch:
    """Which inputs of a step are cut.

    Attributes:
        model, by: which, and by whom.
        cut: of the inputs that are cut, the dim by name.
        candidates: how many there were.
        entries: how many of them are entries of the batch.
        seconds: from the captured program on [s].
    """

    model: str
    by: str
    cut: Mapping[str, Placement]
    candidates: int
    entries: int
    seconds: float

    @property
    def rows(self) -> int:
        """Inputs that are cut along dim 0."""
        return sum(place == 0 for place in self.cut.values())


def cut_batches(names: tuple[str, ...] = tuple(MODELS)) -> list[CutBatch]:
    """What the agent and the exact search find."""
    found: list[CutBatch] = []
    for name in names:
        for by in ("exact", "dqn"):
            found.append(_cut(name, by))
            print(found[-1], file=sys.stderr, flush=True)
    return found


def _cut(name: str, by: str) -> CutBatch:
    program = program_of(MODELS[name])
    start = time.perf_counter()
    own = BatchEnvironment(program, DEVICES)
    placed = most_inputs(own) if by == "exact" else _learnt(own)
    seconds = time.perf_counter() - start
    inputs = program.input_by_node
    return CutBatch(
        model=name,
        by=by,
        cut={inputs[node].name: place for node, place in placed.items() if place >= 0},
        candidates=len(own.candidates),
        entries=sum(inputs[node].role is Role.BATCH for node in own.candidates),
        seconds=seconds,
    )


def _learnt(own: BatchEnvironment) -> Mapping[int, Placement]:
    """What an agent decides once it has learnt; nothing where it runs into a conflict."""
    agent = Agent(own, LEARNING)
    for _ in agent.run(EPISODES):
        pass
    observation = own.reset(np.random.default_rng(0))
    while True:
        turn = own.step(agent.best(observation))
        if turn.observation is None:
            return own.placements if turn.reward > 0 else {}
        observation = turn.observation


def batch_claims(found: list[CutBatch]) -> tuple[Claim, ...]:
    """Every entry of the batch is cut by rows, and nothing else is cut."""
    return (
        *(exactly(f"{f.model}, {f.by}: inputs cut along dim 0", f.rows, f.entries) for f in found),
        at_most(
            "automatic data parallelism: longest time [s]", max(f.seconds for f in found), MOST_S
        ),
    )


def batch_row(found: CutBatch) -> tuple[str, ...]:
    """A row of the bench's table."""
    published, took = PUBLISHED[found.model]
    return (
        f"{found.model}, inputs",
        found.by,
        f"{found.rows} of {found.candidates} on dim 0",
        published,
        f"{found.seconds:.1f} s",
        took,
    )
