"""The programme over stages, grids and devices finds what trying everything finds."""

from __future__ import annotations

from itertools import combinations, pairwise, product
from math import inf

import numpy as np
import pytest

from tests.pieces import piece
from tests.property.test_partition_equals_brute_force import quickest
from weft.parallel.exact.pipelines.chain import Chain, Chains, Option
from weft.parallel.exact.pipelines.partition import Runs
from weft.parallel.pipeline.estimate import StageCost

MICRO_BATCHES = 6
Table = list[list[StageCost]]


class Problem:
    """Pieces that differ by grid; a grid of two devices may only begin at an even rank."""

    def __init__(self, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self.pieces = int(generator.integers(2, 6))
        self.devices = int(generator.integers(2, 5))
        self.sizes = [1, 2, int(generator.integers(1, 4))]
        kept = (4.0, float(generator.integers(2, 4)), 1.0)
        longer = (0.0, float(generator.integers(0, 3)), float(generator.integers(2, 5)))
        self.tables: list[Table] = []
        for _ in self.sizes:
            times = generator.integers(1, 12, size=self.pieces)
            state = generator.integers(0, 3, size=self.pieces)
            self.tables.append(
                [
                    [
                        piece(float(t) + more, keep, float(s))
                        for t, s in zip(times, state, strict=True)
                    ]
                    for keep, more in zip(kept, longer, strict=True)
                ]
            )
        self.limit = float(generator.integers(6, 30))
        shape = (3, 3, self.devices + 1, self.pieces + 1)
        self.there = generator.integers(0, 4, size=shape).astype(float)
        self.back = generator.integers(0, 4, size=shape).astype(float)

    def first_ranks(self, option: int) -> frozenset[int]:
        step = 2 if self.sizes[option] == 2 else 1
        return frozenset(range(0, self.devices, step))

    def found(self) -> list[Chain]:
        options = [
            Option(
                num_devices=size,
                runs=Runs(table, 1, any_length=True),
                first_ranks=self.first_ranks(number),
            )
            for number, (size, table) in enumerate(zip(self.sizes, self.tables, strict=True))
        ]
        return Chains(
            options,
            self.devices,
            self.devices,
            MICRO_BATCHES,
            self.limit,
            lambda a, b, rank: (self.there[a, b, rank], self.back[a, b, rank]),
        ).best()

    def step_s(self, cuts: tuple[int, ...], options: tuple[int, ...]) -> float:
        """Of one chain; infinite if it is none."""
        ranks = [0]
        for option in options:
            ranks.append(ranks[-1] + self.sizes[option])
        if ranks[-1] != self.devices or any(
            rank not in self.first_ranks(option)
            for rank, option in zip(ranks, options, strict=False)
        ):
            return inf
        stages = len(options)
        seconds = [
            quickest(self.tables[o], range(i, j), min(MICRO_BATCHES, stages - s), self.limit)
            for s, (o, (i, j)) in enumerate(
                zip(options, pairwise([0, *cuts, self.pieces]), strict=True)
            )
        ]
        sent = [
            (self.there[a, b, rank, cut], self.back[a, b, rank, cut])
            for (a, b), rank, cut in zip(pairwise(options), ranks[1:], cuts, strict=False)
        ]
        longest = max([*seconds, *(max(pair) for pair in sent)])
        return (MICRO_BATCHES - 1) * longest + sum(seconds) + sum(map(sum, sent))

    def least(self) -> float:
        return min(
            (
                self.step_s(cuts, options)
                for stages in range(1, min(self.devices, self.pieces) + 1)
                for cuts in combinations(range(1, self.pieces), stages - 1)
                for options in product(range(3), repeat=stages)
            ),
            default=inf,
        )


@pytest.mark.parametrize("seed", range(120))
def test_no_cuts_and_no_grids_take_less(seed: int) -> None:
    problem = Problem(seed)
    found, least = problem.found(), problem.least()
    if least == inf:
        assert found == []
        return
    assert found[0].step_s(MICRO_BATCHES) == pytest.approx(least)
    for chain in found:
        assert problem.step_s(chain.stages.cuts, chain.options) == pytest.approx(
            chain.step_s(MICRO_BATCHES)
        )
