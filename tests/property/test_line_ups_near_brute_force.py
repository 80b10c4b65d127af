"""Unlike groups in line come near the best that any order and any cuts can make."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, permutations
from statistics import fmean

import numpy as np
import pytest

from tests.pieces import piece
from weft.parallel.exact.pipelines.line_up import Inside, Kind, LineUps
from weft.parallel.exact.pipelines.partition import Floats, Runs
from weft.parallel.pipeline.estimate import StageCost, predict_pipeline
from weft.parallel.pipeline.piece_costs import joined
from weft.parallel.pipeline.schedule import order

PIECES, SEEDS = 9, 25
OF_KIND, SLOWER = (2, 2), (1.0, 2.5)
ANY = [(0, sum(OF_KIND) - 1)] * PIECES


class Case:
    """Four groups of two kinds, and pieces that send less within a kind than between kinds."""

    def __init__(self, seed: int, sent_s: float) -> None:
        generator = np.random.default_rng(seed)
        work = generator.uniform(1, 4, PIECES)
        # What is quick on one kind is not as quick on the other.
        uneven = generator.uniform(0.7, 1.4, (len(OF_KIND), PIECES))
        self.costs = [
            [
                replace(piece(slow * own * rate), finish_s=float(generator.uniform(0, 3)))
                for own, rate in zip(work, rates, strict=True)
            ]
            for slow, rates in zip(SLOWER, uneven, strict=True)
        ]
        self.crossing_s = np.append(sent_s * generator.uniform(0, 2, PIECES), 0.0)

    def crossing(self, kind: int, number: int, after: int, of: int) -> tuple[Floats, Floats]:
        """What crosses, by the piece that comes next; less between the first groups of kinds."""
        one_way = self.crossing_s * (0.2 if kind == after else 1.0 if number + of else 0.6)
        return one_way, one_way

    def line_ups(self, micro_batches: int) -> LineUps:
        """What looks for them."""
        kinds = [
            Kind(count, (inside(own),), 1e30)
            for count, own in zip(OF_KIND, self.costs, strict=True)
        ]
        return LineUps(kinds, micro_batches, self.crossing, ANY)

    def step_s(self, kinds: tuple[int, ...], cuts: tuple[int, ...], micro_batches: int) -> float:
        """Simulated."""
        bounds = [0, *cuts, PIECES]
        stages = [
            joined(self.costs[kind][first:end])
            for kind, first, end in zip(kinds, bounds, bounds[1:], strict=False)
        ]
        numbered = [(kind, kinds[:at].count(kind)) for at, kind in enumerate(kinds)]
        sent = [
            float(self.crossing(*one, *other)[0][cut])
            for one, other, cut in zip(numbered, numbered[1:], cuts, strict=False)
        ]
        pairs = list(zip([*sent, 0.0], [0.0, *sent], strict=True))
        count = len(kinds)
        orders = order("1f1b", count, count, micro_batches)
        return predict_pipeline(orders, stages, pairs, micro_batches, count).step_s

    def least_s(self, micro_batches: int) -> float:
        """Of all orders and cuts, simulated."""
        kinds = [kind for kind, count in enumerate(OF_KIND) for _ in range(count)]
        return min(
            self.step_s(line, cuts, micro_batches)
            for line in sorted(set(permutations(kinds)))
            for cuts in combinations(range(1, PIECES), len(kinds) - 1)
        )


def inside(costs: list[StageCost]) -> Inside:
    """One way to share out a micro-batch; recomputation saves nothing."""
    runs = Runs([costs] * 3, 1, any_length=True)
    return Inside(runs, tuple(cost.finish_s for cost in costs))


@pytest.mark.parametrize(
    ("micro_batches", "sent_s"), [(8, 0.0), (4, 0.5), (8, 0.5), (8, 2.0), (16, 2.0)]
)
def test_line_ups_are_near_the_best_order_and_the_best_cuts(
    micro_batches: int, sent_s: float
) -> None:
    over, closed = [], []
    for seed in range(SEEDS):
        case = Case(seed, sent_s)
        found = case.line_ups(micro_batches).best()
        steps = [case.step_s(own.kinds, own.cuts, micro_batches) for own in found]
        over.append(min(steps) / case.least_s(micro_batches))
        closed.append(found[0].step_s(micro_batches) / steps[0])
    assert min(over) >= 1.0 - 1e-9
    assert fmean(over) <= 1.02
    assert max(over) <= 1.1
    # The closed form waits for a round whatever the schedule makes of it.
    assert 1.0 - 1e-9 <= min(closed) <= max(closed) <= 1.2
