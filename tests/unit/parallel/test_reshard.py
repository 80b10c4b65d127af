"""Laws of resharding: ways, their ends and their cost."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from weft.core.errors import VerifyError
from weft.cost.collective import collective_seconds
from weft.machine.presets import preset
from weft.machine.topology import axis_group
from weft.parallel.local import CollectiveKind
from weft.parallel.placement import PARTIAL, PARTIAL_MAX, REPLICATED, Mesh, is_partial
from weft.parallel.reshard import HopTable, Resharding, hop_kind
from weft.program.types import DType, TensorType

MACHINE = preset("dgx-h100x2")
MESH = Mesh((2, 8))
TENSOR = TensorType(DType.BF16, (64, 32, 48))


@pytest.fixture(scope="module")
def table() -> HopTable:
    return Resharding(MACHINE, MESH).table(TENSOR)


def test_every_path_ends_where_it_should_and_costs_its_distance(table: HopTable) -> None:
    resharding = Resharding(MACHINE, MESH)
    for before, after in itertools.product(table.states, repeat=2):
        distance = table.distance[table.index[before], table.index[after]]
        if not np.isfinite(distance):
            continue
        state, cost = before, 0.0
        for hop in table.path(before, after):
            cost += resharding.hop_seconds(TENSOR, state, hop.axis, hop.placement)
            state = (*state[: hop.axis], hop.placement, *state[hop.axis + 1 :])
        assert state == after
        assert cost == pytest.approx(distance)


def test_whole_values_can_reach_every_whole_value(table: HopTable) -> None:
    whole = [n for n, s in enumerate(table.states) if not any(map(is_partial, s))]
    assert np.isfinite(table.distance[np.ix_(whole, whole)]).all()


def test_no_way_leads_into_a_pending_sum(table: HopTable) -> None:
    for number, state in enumerate(table.states):
        for axis, placement in enumerate(state):
            if is_partial(placement):
                others = [n for n, s in enumerate(table.states) if s[axis] != placement]
                assert np.isinf(table.distance[others, number]).all()


def test_no_detour_is_cheaper_than_the_distance(table: HopTable) -> None:
    d = table.distance
    for middle in range(len(table.states)):
        assert (d <= d[:, middle : middle + 1] + d[middle : middle + 1, :] + 1e-12).all()


def test_an_outer_cut_is_not_undone_before_an_inner_one_of_the_same_dim(table: HopTable) -> None:
    hops = table.path((0, 0), (REPLICATED, REPLICATED))
    assert [hop.axis for hop in hops] == [1, 0]


def test_useful_hops_keep_all_distances(table: HopTable) -> None:
    made = np.arange(len(table.states))[::3]
    read = np.arange(len(table.states))[::4]
    hops = table.useful_hops(made, read)
    distance = np.full_like(table.distance, np.inf)
    np.fill_diagonal(distance, 0.0)
    distance[table.source[hops], table.target[hops]] = table.seconds[hops]
    for middle in range(len(table.states)):
        through = distance[:, middle : middle + 1] + distance[middle : middle + 1, :]
        distance = np.minimum(distance, through)
    np.testing.assert_allclose(distance[np.ix_(made, read)], table.distance[np.ix_(made, read)])


def test_reductions_across_nodes_cost_more_than_inside(table: HopTable) -> None:
    outer = table.distance[table.index[PARTIAL, REPLICATED], table.index[REPLICATED, REPLICATED]]
    inner = table.distance[table.index[REPLICATED, PARTIAL], table.index[REPLICATED, REPLICATED]]
    assert outer > inner


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (REPLICATED, 0, CollectiveKind.SLICE),
        (PARTIAL, REPLICATED, CollectiveKind.ALL_REDUCE),
        (PARTIAL_MAX, REPLICATED, CollectiveKind.ALL_REDUCE),
        (PARTIAL, 1, CollectiveKind.REDUCE_SCATTER),
        (0, REPLICATED, CollectiveKind.ALL_GATHER),
        (0, 1, CollectiveKind.ALL_TO_ALL),
    ],
)
def test_each_change_is_one_collective(before: int, after: int, kind: CollectiveKind) -> None:
    assert hop_kind(before, after) is kind


@pytest.mark.parametrize(("before", "after"), [(REPLICATED, PARTIAL), (0, 0), (PARTIAL_MAX, 0)])
def test_other_changes_are_refused(before: int, after: int) -> None:
    with pytest.raises(VerifyError):
        hop_kind(before, after)


def test_small_moves_that_nothing_waits_for_pay_their_share_of_a_message():
    message_bytes = 2.0**22
    resharding = Resharding(MACHINE, Mesh((16,)), message_bytes)
    small = TensorType(DType.F32, (256,))
    alone, joined = (resharding.table(small, joined=j) for j in (False, True))
    reduce = alone.index[(PARTIAL,)], alone.index[(REPLICATED,)]
    group = axis_group(MACHINE, (16,), 0)
    share = collective_seconds("all-reduce", message_bytes, group) * 1024 / message_bytes
    assert joined.distance[reduce] == pytest.approx(share)
    assert joined.distance[reduce] < alone.distance[reduce] / 10


def test_large_moves_and_exchanges_travel_alone():
    large, rows = TensorType(DType.F32, (1024, 1024)), TensorType(DType.F32, (64, 64))
    resharding = Resharding(MACHINE, Mesh((16,)))
    alone, joined = (resharding.table(large, joined=j).distance for j in (False, True))
    assert np.array_equal(alone, joined)
    alone, joined = (resharding.table(rows, joined=j) for j in (False, True))
    exchange = alone.index[(0,)], alone.index[(1,)]
    assert joined.distance[exchange] <= alone.distance[exchange]
    assert joined.seconds[_hop(joined, exchange)] == alone.seconds[_hop(alone, exchange)]


def _hop(table: HopTable, ends: tuple[int, int]) -> int:
    return int(np.flatnonzero((table.source == ends[0]) & (table.target == ends[1]))[0])
