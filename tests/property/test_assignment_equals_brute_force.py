"""The integer programme over the graph finds what trying every assignment finds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from math import inf

import numpy as np
import pytest

from tests.pieces import piece
from weft.parallel.exact.pipelines.assign import Flow, StageProblem, assign
from weft.parallel.exact.pipelines.partition import Runs, partition
from weft.parallel.pipeline.estimate import StageCost
from weft.parallel.pipeline.schedule import order
from weft.parallel.pipeline.timing import StageTime, pipeline_time

GRAPHS = range(120)


def block(seconds: float, kept: float = 0.0, lasting: float = 0.0, more: float = 0.0) -> StageCost:
    return piece(
        seconds, kept, lasting, sums=lasting / 2, transient=more, finish=lasting / 2 + more / 2
    )


def graph(
    generator: np.random.Generator, count: int, boundaries: int, most_s: float
) -> tuple[Flow, ...]:
    """Every block but the first reads one or two before it; gradients come back."""
    readers: dict[int, list[int]] = {}
    for reader in range(1, count):
        for maker in generator.choice(reader, size=min(reader, 1 + reader % 2), replace=False):
            readers.setdefault(int(maker), []).append(reader)
    flows: list[Flow] = []
    for maker, of in readers.items():
        for pairs, backward in [
            (tuple((maker, reader) for reader in of), False),
            *((((maker, reader),), True) for reader in of),
        ]:
            seconds = tuple(float(s) for s in generator.integers(0, 4, boundaries) * most_s / 3)
            flows.append(Flow(pairs=pairs, seconds=seconds, backward=backward))
    return tuple(flows)


def problem(seed: int, most_s: float = 2.0) -> StageProblem:
    """Blocks on a random graph that keep less the longer they take."""
    generator = np.random.default_rng(seed)
    options = 1 + seed % 2
    count = int(generator.integers(4, 6 if options > 1 else 8))
    stages = int(generator.integers(2, 4))
    seconds = generator.integers(1, 9, size=count)
    lasting = generator.integers(0, 4, size=count)
    by_option = [
        [
            block(float(s) + 2.0 * o, (4.0, 1.0)[o], float(b), float(s) / 4)
            for s, b in zip(seconds, lasting, strict=True)
        ]
        for o in range(options)
    ]
    limit = float(generator.integers(12, 45))
    return StageProblem(
        by_option=by_option,
        flows=graph(generator, count, stages - 1, most_s),
        in_flight=[float(stages - s) for s in range(stages)],
        limit_bytes=[limit if seed % 3 else inf] * stages,
        micro_batches=6,
    )


def monotone(of: StageProblem) -> Iterator[tuple[int, ...]]:
    """Every assignment in which no block is before one that it reads from."""
    edges = {pair for flow in of.flows for pair in flow.pairs}
    for stages in product(range(of.num_stages), repeat=of.num_blocks):
        if all(stages[u] <= stages[v] for u, v in edges):
            yield stages


def least(of: StageProblem) -> float:
    every_option = list(product(range(len(of.by_option)), repeat=of.num_blocks))
    return min(of.step_s(stages, options) for stages in monotone(of) for options in every_option)


@pytest.mark.parametrize("seed", GRAPHS)
def test_no_assignment_takes_less(seed: int) -> None:
    of = problem(seed)
    found, best = assign(of), least(of)
    if best == inf:
        assert found is None
        return
    assert found is not None
    assert found.step_s == pytest.approx(best)
    assert found.step_s == of.step_s(found.stages, found.options)
    assert found.bound_s == pytest.approx(best, rel=1e-4)


def test_the_graphs_are_of_all_kinds() -> None:
    """Some fit nowhere, some have a better assignment than runs of the given order."""
    found = [assign(problem(seed)) for seed in GRAPHS]
    rising = [all(a <= b for a, b in pairwise(one.stages)) for one in found if one is not None]
    assert len(rising) > 90
    assert any(one is None for one in found)
    assert rising.count(False) > 10


def chain_runs(of: StageProblem) -> tuple[list[int], list[int]] | None:
    """Stages and options that the dynamic programme along the given order finds."""
    first = of.by_option[0]
    by_option = [first, of.by_option[-1], of.by_option[-1]]
    runs = Runs(by_option, of.num_stages, any_length=True)
    found = partition(runs, of.in_flight, of.limit_bytes, of.micro_batches)
    if found is None:
        return None
    bounds = [0, *found.cuts, of.num_blocks]
    stages = [s for s, (i, j) in enumerate(pairwise(bounds)) for _ in range(i, j)]
    again = [
        min(own.option(k - i), len(of.by_option) - 1)
        for own, (i, j) in zip(found.recompute, pairwise(bounds), strict=True)
        for k in range(i, j)
    ]
    return stages, again


@pytest.mark.parametrize("seed", GRAPHS)
def test_never_worse_than_the_dynamic_programme_on_the_order_of_execution(seed: int) -> None:
    of = problem(1000 + seed)
    in_order, found = chain_runs(of), assign(of)
    if in_order is None or of.step_s(*in_order) == inf:
        return
    assert found is not None
    assert found.step_s <= of.step_s(*in_order) * (1 + 1e-9)
    # Nor is it where there is no time to solve anything.
    hurried = assign(of, start=in_order, time_limit_s=0.0)
    assert hurried is not None
    assert hurried.step_s <= of.step_s(*in_order)


@pytest.mark.parametrize("seed", range(40))
def test_on_a_chain_with_free_transfers_it_is_the_dynamic_programme(seed: int) -> None:
    generator = np.random.default_rng(seed)
    costs = [block(float(s)) for s in generator.integers(1, 9, size=7)]
    chain = tuple(Flow(pairs=((a, a + 1),), seconds=(0.0, 0.0)) for a in range(6))
    in_flight = [3.0, 2.0, 1.0]
    of = StageProblem(
        by_option=[costs], flows=chain, in_flight=in_flight, limit_bytes=[inf] * 3, micro_batches=6
    )
    found = assign(of)
    by_runs = partition(Runs([costs] * 3, 3), in_flight, [inf] * 3, 6)
    assert found is not None
    assert by_runs is not None
    assert found.step_s == pytest.approx(by_runs.step_s(6))


def simulated(of: StageProblem, stages: Sequence[int]) -> float:
    """The step of 1F1B, by the simulator."""
    times = [
        sum(c.time.forward_s for c, own in zip(of.by_option[0], stages, strict=True) if own == s)
        for s in range(of.num_stages)
    ]

    def line(boundary: int, backward: bool) -> float:
        if not 0 <= boundary < of.num_stages - 1:
            return 0.0
        flows = (f for f in of.flows if f.backward == backward and f.crosses(boundary, stages))
        return sum(f.seconds[boundary] for f in flows)

    each = [
        StageTime(
            forward_s=t,
            inputs_s=t,
            weights_s=t,
            send_forward_s=line(s, False),
            send_backward_s=line(s - 1, True),
        )
        for s, t in enumerate(times)
    ]
    orders = order("1f1b", of.num_stages, of.num_stages, of.micro_batches)
    return pipeline_time(orders, each).step_s


def test_what_it_minimises_is_near_what_the_simulator_says() -> None:
    ratios: list[float] = []
    for seed in GRAPHS:
        of = problem(2 * seed)
        for stages in monotone(of):
            step_s = of.step_s(stages, [0] * of.num_blocks)
            if step_s < inf:
                ratios.append(step_s / simulated(of, stages))
    assert len(ratios) > 500
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.03)
    assert np.percentile(ratios, 1) > 0.93
    assert np.percentile(ratios, 99) < 1.12


def test_a_value_that_many_read_crosses_each_boundary_once() -> None:
    costs = [block(1.0) for _ in range(3)]
    flow = Flow(pairs=((0, 1), (0, 2)), seconds=(0.5, 0.25))
    of = StageProblem(
        by_option=[costs],
        flows=(flow,),
        in_flight=[3.0, 2.0, 1.0],
        limit_bytes=[inf] * 3,
        micro_batches=1,
    )
    assert of.step_s((0, 1, 2), (0, 0, 0)) == pytest.approx(3.75)
    assert of.step_s((0, 2, 1), (0, 0, 0)) == pytest.approx(3.75)
    assert of.step_s((1, 0, 2), (0, 0, 0)) == inf
    assert of.step_s((0, 0, 2), (0, 0, 0)) == inf
