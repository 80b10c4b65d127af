"""The programme over stages finds what trying everything, and what one integer programme, find."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise, product
from math import inf

import highspy
import numpy as np
import pytest

from tests.pieces import piece
from weft.parallel.exact.pipelines.partition import Partition, Runs, partition
from weft.parallel.pipeline.again import MIXTURES, Recompute
from weft.parallel.pipeline.estimate import StageCost

MICRO_BATCHES = 6
GRAPHS = range(120)


def problem(seed: int) -> tuple[list[list[StageCost]], int, list[float]]:
    """Pieces that differ in time and state and keep alike, which the programme is exact for."""
    generator = np.random.default_rng(seed)
    count, stages = int(generator.integers(3, 7)), int(generator.integers(1, 4))
    kept = (4.0, float(generator.integers(2, 4)), 1.0)
    longer = (0.0, float(generator.integers(0, 3)), float(generator.integers(2, 5)))
    times = generator.integers(1, 9, size=count)
    state = generator.integers(0, 3, size=count)
    by_option = [
        [piece(float(t) + more, keep, float(s)) for t, s in zip(times, state, strict=True)]
        for keep, more in zip(kept, longer, strict=True)
    ]
    stages = min(stages, count)
    limit = float(generator.integers(5, 26))
    return by_option, stages, [limit] * stages


def stage_seconds(by_option: list[list[StageCost]], run: range, options: tuple[int, ...]) -> float:
    return sum(3 * by_option[o][k].time.forward_s for k, o in zip(run, options, strict=True))


def stage_bytes(
    by_option: list[list[StageCost]], run: range, options: tuple[int, ...], in_flight: float
) -> float:
    return sum(
        by_option[o][k].state_bytes + in_flight * by_option[o][k].time.kept_bytes
        for k, o in zip(run, options, strict=True)
    )


def quickest(by_option: list[list[StageCost]], run: range, in_flight: float, limit: float) -> float:
    """Of one stage, all ways to mix two options tried."""
    best = inf
    for mixture in MIXTURES:
        for options in product(mixture, repeat=len(run)):
            if stage_bytes(by_option, run, options, in_flight) <= limit:
                best = min(best, stage_seconds(by_option, run, options))
    return best


def all_partitions(by_option: list[list[StageCost]], stages: int, limits: list[float]):
    """The seconds of all stages, for every way to cut."""
    count = len(by_option[0])
    for cuts in combinations(range(1, count), stages - 1):
        bounds = [0, *cuts, count]
        yield [
            quickest(by_option, range(i, j), stages - number, limits[number])
            for number, (i, j) in enumerate(pairwise(bounds))
        ]


def step_s(seconds: list[float]) -> float:
    return (MICRO_BATCHES - 1) * max(seconds) + sum(seconds)


@pytest.mark.parametrize("seed", GRAPHS)
def test_no_cut_and_no_recomputation_has_a_shorter_longest_stage(seed: int) -> None:
    by_option, stages, limits = problem(seed)
    in_flight = [float(stages - s) for s in range(stages)]
    found = partition(Runs(by_option, stages), in_flight, limits, MICRO_BATCHES)
    tried = [seconds for seconds in all_partitions(by_option, stages, limits) if max(seconds) < inf]
    if not tried:
        assert found is None
        return
    assert found is not None
    least = min(step_s(seconds) for seconds in tried)
    # Recomputing a number of pieces is exact; which step is least is looked for near the least
    # longest stage only.
    assert found.step_s(MICRO_BATCHES) <= least * (1 + 1e-9)
    check(found, by_option, stages, limits)


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("seed", GRAPHS)
def test_what_is_sent_between_stages_counts(seed: int, waits: bool) -> None:
    by_option, stages, limits = problem(seed)
    hops = [float(n) for n in np.random.default_rng(seed).integers(0, 4, len(by_option[0]))]
    in_flight = [float(stages - s) for s in range(stages)]
    runs = Runs(by_option, stages, hops)
    found = partition(runs, in_flight, limits, MICRO_BATCHES, waits=waits)
    count, steps = len(by_option[0]), []
    all_cuts = combinations(range(1, count), stages - 1)
    tried = all_partitions(by_option, stages, limits)
    for cuts, seconds in zip(all_cuts, tried, strict=True):
        sent = [hops[cut - 1] for cut in cuts] + [0.0]
        own = [s + hop for s, hop in zip(seconds, sent, strict=True)] if waits else seconds
        steps.append(step_s(own) + (0.0 if waits else sum(sent)))
    if min(steps) == inf:
        assert found is None
    else:
        assert found is not None
        # Limits of the longest stage are tried in steps, so a sum may be missed by little.
        assert min(steps) * (1 - 1e-9) <= found.step_s(MICRO_BATCHES) <= min(steps) * 1.05


def check(
    found: Partition, by_option: list[list[StageCost]], stages: int, limits: list[float]
) -> None:
    """What was found is what it says: its stages fit and take that long."""
    bounds = [0, *found.cuts, len(by_option[0])]
    assert len(found.recompute) == stages
    for number, (i, j) in enumerate(pairwise(bounds)):
        options = tuple(found.recompute[number].option(k - i) for k in range(i, j))
        assert stage_bytes(by_option, range(i, j), options, stages - number) <= limits[number]
        seconds = stage_seconds(by_option, range(i, j), options)
        assert found.seconds[number] == pytest.approx(seconds)


@pytest.mark.parametrize("seed", GRAPHS)
def test_stages_of_pieces_that_keep_unlike_fit_and_take_as_long_as_said(seed: int) -> None:
    alike, stages, limits = problem(seed)
    generator = np.random.default_rng(seed)
    kept = [sorted(generator.integers(0, 9, size=3).tolist(), reverse=True) for _ in alike[0]]
    by_option = [
        [
            piece(3 * c.time.forward_s, float(of[o]), c.state_bytes)
            for c, of in zip(costs, kept, strict=True)
        ]
        for o, costs in enumerate(alike)
    ]
    in_flight = [float(stages - s) for s in range(stages)]
    found = partition(Runs(by_option, stages), in_flight, limits, MICRO_BATCHES)
    if found is not None:
        check(found, by_option, stages, limits)
        return
    for seconds in all_partitions([by_option[-1]] * 3, stages, limits):
        assert max(seconds) == inf


@pytest.mark.parametrize("seed", GRAPHS)
def test_runs_of_pieces_that_repeat_cost_what_they_cost_one_by_one(seed: int) -> None:
    by_option, stages, limits = problem(seed)
    again = [[*costs, *costs, *costs] for costs in by_option]
    apart = [[replace(cost) for cost in costs] for costs in again]
    in_flight = [float(stages - s) for s in range(stages)]
    found, other = (
        partition(Runs(costs, stages), in_flight, limits, MICRO_BATCHES) for costs in (again, apart)
    )
    assert found == other


@pytest.mark.parametrize("seed", GRAPHS)
def test_the_longest_stage_is_that_of_one_integer_programme(seed: int) -> None:
    by_option, stages, limits = problem(seed)
    in_flight = [float(stages - s) for s in range(stages)]
    longest = longest_by_integers(by_option, stages, limits)
    runs = Runs(by_option, stages)
    found = partition(runs, in_flight, limits, 10**9)  # the longest stage is all that counts
    if found is None:
        assert longest == inf
    else:
        assert max(found.seconds) == pytest.approx(longest)


def longest_by_integers(
    by_option: list[list[StageCost]], stages: int, limits: list[float]
) -> float:
    """min T: each piece in one stage and of one option, stages in order and at most T long.

    A stage mixes two options at most, as in MIXTURES, so one of three is left out of each.
    """
    count, options = len(by_option[0]), len(by_option)
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    longest = highs.addVariable(lb=0.0, obj=1.0)
    x = {
        (k, s, o): highs.addBinary()
        for k in range(count)
        for s in range(stages)
        for o in range(options)
    }
    out = {(s, o): highs.addBinary() for s in range(stages) for o in range(options)}
    at = {
        (k, s): sum(x[k, s, o] for o in range(options)) for k in range(count) for s in range(stages)
    }
    for k in range(count):
        highs.addConstr(sum(at[k, s] for s in range(stages)) == 1)
    for k, after in pairwise(range(count)):
        for s in range(stages):
            # What comes later does not lie in an earlier stage.
            highs.addConstr(
                sum(at[after, t] for t in range(s + 1)) <= sum(at[k, t] for t in range(s + 1))
            )
    for s in range(stages):
        each = [(k, o) for k in range(count) for o in range(options)]
        highs.addConstr(sum(at[k, s] for k in range(count)) >= 1)
        highs.addConstr(sum(out[s, o] for o in range(options)) == 1)
        for k, o in each:
            highs.addConstr(x[k, s, o] + out[s, o] <= 1)
        seconds = sum(3 * by_option[o][k].time.forward_s * x[k, s, o] for k, o in each)
        num_bytes = sum(
            (by_option[o][k].state_bytes + (stages - s) * by_option[o][k].time.kept_bytes)
            * x[k, s, o]
            for k, o in each
        )
        highs.addConstr(seconds - longest <= 0)
        highs.addConstr(num_bytes <= limits[s])
    highs.minimize()
    if highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return inf
    return float(highs.getInfo().objective_function_value)


def test_a_stage_recomputes_its_first_pieces() -> None:
    assert [Recompute(0, 2, 2).option(k) for k in range(4)] == [2, 2, 0, 0]
