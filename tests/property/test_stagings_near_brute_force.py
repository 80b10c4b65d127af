"""Where transfers take as long as stages, stages are near the best that any cuts can make."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from statistics import fmean

import numpy as np
import pytest

from tests.pieces import piece
from tests.searched import MACHINE
from weft.machine.topology import link_between
from weft.parallel.exact.pipelines.configs import Config
from weft.parallel.exact.pipelines.evaluate import Staging, predicted, stagings
from weft.parallel.exact.pipelines.partition import Partition
from weft.parallel.pipeline.again import Recompute
from weft.parallel.pipeline.estimate import Load, StageCost

GROUPS, PIECES, SEEDS = 4, 12, 40
PER_S = link_between(MACHINE, 0, 2).bytes_per_s.value


def pieces(seed: int, sent_s: float) -> list[list[StageCost]]:
    """Pieces of 1 to 4 seconds that send for up to twice so long each way."""
    generator = np.random.default_rng(seed)

    def load() -> Load:
        return Load(1, PER_S * sent_s * generator.uniform(0, 2))

    costs = [
        replace(piece(float(generator.uniform(1, 4))), forward=load(), backward=load())
        for _ in range(PIECES)
    ]
    return [costs] * 3


def cut_at(cuts: tuple[int, ...], schedule: str, chunks: int) -> Staging:
    """Stages that begin there and recompute nothing."""
    number = GROUPS * chunks
    stages = Partition(cuts=cuts, recompute=(Recompute(0, 0, 0),) * number, seconds=(0.0,) * number)
    return Staging(schedule=schedule, chunks=chunks, stages=stages, rough_s=0.0)


@pytest.mark.parametrize(
    ("schedule", "chunks", "mean"),
    [("1f1b", 1, 1.045), ("zero-bubble", 1, 1.045), ("interleaved", 2, 1.06)],
)
@pytest.mark.parametrize(("micro_batches", "sent_s"), [(4, 1.0), (4, 3.0), (8, 2.0)])
def test_the_simulator_chooses_among_stages_whose_transfers_are_slow(
    micro_batches: int, sent_s: float, schedule: str, chunks: int, mean: float
) -> None:
    config = Config(GROUPS, 1, 2, micro_batches, 1)
    over = []
    for seed in range(SEEDS):
        costs = pieces(seed, sent_s)
        (found,) = stagings(costs, config, 1e30, [(schedule, chunks)], MACHINE)
        own_s = predicted(costs, config, found, MACHINE).step_s
        least_s = min(
            predicted(costs, config, cut_at(cuts, schedule, chunks), MACHINE).step_s
            for cuts in combinations(range(1, PIECES), GROUPS * chunks - 1)
        )
        over.append(own_s / least_s)
    # Each limit of a stage gives one cut; with the closed form alone the mean is up to 1.1.
    assert fmean(over) <= mean
    assert max(over) <= 1.25
