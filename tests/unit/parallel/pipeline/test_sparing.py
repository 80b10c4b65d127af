"""Stages between which little is sent."""

from __future__ import annotations

from bisect import bisect_right
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.parallel.pipeline.expert import even_runs
from weft.parallel.pipeline.sparing import LIMITS, sparing_cuts

times = st.integers(0, 9).map(float)


@st.composite
def lines(draw: st.DrawFn) -> tuple[list[list[float]], list[list[float]]]:
    """Work of each piece in each stage, and what crosses if a stage begins at it."""
    pieces, stages = draw(st.integers(3, 8)), draw(st.integers(1, 3))
    own = st.lists(times, min_size=pieces, max_size=pieces)
    work = [[x + 1.0 for x in draw(own)] for _ in range(stages)]
    return work, [draw(own) for _ in range(stages - 1)]


def parts(
    work: list[list[float]], crossing: list[list[float]], cuts: tuple[int, ...]
) -> list[float]:
    bounds = [0, *cuts, len(work[0])]
    stages = [sum(own[a:b]) for own, a, b in zip(work, bounds, bounds[1:], strict=False)]
    return [*stages, *(own[cut] for own, cut in zip(crossing, cuts, strict=True))]


def even(work: list[list[float]]) -> tuple[int, ...]:
    return tuple(even_runs(work[0], [1.0] * len(work)))


def anywhere(work: list[list[float]]) -> list[tuple[int, int]]:
    return [(0, len(work) - 1)] * len(work[0])


@given(lines(), st.integers(0, 9))
def test_nothing_is_shorter_of_all_that_wait_no_longer_than_a_limit(
    line: tuple[list[list[float]], list[list[float]]], rounds: int
) -> None:
    work, crossing = line
    found = sparing_cuts(work, crossing, even(work), rounds, anywhere(work))
    assert found is not None
    longest_s = max(parts(work, crossing, even(work)))

    def expected_s(cuts: tuple[int, ...], limit: float) -> float:
        own = parts(work, crossing, cuts)
        return sum(own) + rounds * limit if max(own) <= limit * (1 + 1e-9) else float("inf")

    own = parts(work, crossing, found)
    every = list(combinations(range(1, len(work[0])), len(work) - 1))
    assert found in every
    assert sum(own) + rounds * max(own) <= 1e-9 + min(
        expected_s(cuts, limit * longest_s) for cuts in every for limit in LIMITS
    )


@given(lines(), st.integers(0, 9))
def test_it_is_never_expected_to_be_longer_than_even_stages(
    line: tuple[list[list[float]], list[list[float]]], rounds: int
) -> None:
    work, crossing = line
    cuts = sparing_cuts(work, crossing, even(work), rounds, anywhere(work))
    assert cuts is not None
    found, same = parts(work, crossing, cuts), parts(work, crossing, even(work))
    assert sum(found) + rounds * max(found) <= sum(same) + rounds * max(same)


def test_where_nothing_crosses_many_micro_batches_want_even_stages() -> None:
    work = [[1.0] * 12] * 4
    assert sparing_cuts(work, [[0.0] * 12] * 3, (3, 6, 9), 100, anywhere(work)) == (3, 6, 9)


@pytest.mark.parametrize(("rounds", "cuts"), [(0, (10,)), (100, (6,))])
def test_a_wide_middle_is_cut_only_where_waiting_costs_more(
    rounds: int, cuts: tuple[int, ...]
) -> None:
    crossing = [3.0 if 2 <= piece <= 9 else 0.5 for piece in range(12)]
    crossing[1] = 0.6
    work = [[1.0] * 12] * 2
    assert sparing_cuts(work, [crossing], (6,), rounds, anywhere(work)) == cuts


@given(lines(), st.integers(0, 9), st.data())
def test_pinned_pieces_are_in_their_stages_if_any_cuts_have_them_there(
    line: tuple[list[list[float]], list[list[float]]], rounds: int, data: st.DataObject
) -> None:
    work, crossing = line
    pieces, last = len(work[0]), len(work) - 1
    piece = st.tuples(st.integers(0, last), st.integers(0, last))
    drawn = data.draw(st.lists(piece, min_size=pieces, max_size=pieces))
    lowest, highest = (sorted(of) for of in zip(*drawn, strict=True))
    bounds = list(zip(lowest, highest, strict=True))

    def keeps(cuts: tuple[int, ...]) -> bool:
        stages = [bisect_right(cuts, piece) for piece in range(pieces)]
        return all(low <= own <= high for own, (low, high) in zip(stages, bounds, strict=True))

    kept = [cuts for cuts in combinations(range(1, pieces), last) if keeps(cuts)]
    found = sparing_cuts(work, crossing, even(work), rounds, bounds)
    assert (found is None) == (not kept)
    assert found is None or found in kept
