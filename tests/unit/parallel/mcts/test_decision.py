"""Decisions: how rows are shared out, and where nodes live then."""

from math import gcd

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.programs import transformer
from tests.uneven import KINDS, MIXED
from weft.core.errors import InputError
from weft.parallel.mcts.cluster import cluster_of
from weft.parallel.mcts.decision import (
    Action,
    Sync,
    even_rows,
    homes,
    proportional_rows,
    served,
    single,
)
from weft.parallel.mcts.groups import grouped
from weft.parallel.mcts.sketching import sketched
from weft.program.graph import Role

PROGRAM = transformer(num_layers=2, batch=16, slots=("first", "second"))
GROUPING = grouped(PROGRAM, KINDS, most=5)
SKETCH = sketched(GROUPING, KINDS)
EVERYBODY = tuple(range(16))


@given(rows=st.integers(1, 40), count=st.integers(1, 8))
def test_even_rows_differ_by_one_at_most_and_add_up(rows, count):
    shares = even_rows(rows, range(count), count)
    assert sum(shares) == rows and max(shares) - min(shares) <= 1


@given(
    speeds=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    rows=st.integers(1, 30),
)
def test_proportional_rows_end_as_early_as_any(speeds, rows):
    seconds = np.arange(rows + 1)[None, :] / np.asarray(speeds, float)[:, None]
    shares = proportional_rows(seconds, [rows] * len(speeds), range(len(speeds)), len(speeds))
    assert sum(shares) == rows

    def last(of):
        return max(share / speed for share, speed in zip(of, speeds, strict=True))

    for giver in range(len(speeds)):
        for taker in range(len(speeds)):
            if shares[giver] and giver != taker:
                other = list(shares)
                other[giver] -= 1
                other[taker] += 1
                assert last(shares) <= last(other) + 1e-12


def test_rows_go_where_there_is_memory():
    seconds = np.asarray([[0.0, 1.0, 2.0, 3.0, 4.0]] * 2)
    assert proportional_rows(seconds, (1, 4), (0, 1), 2) == (1, 3)
    assert proportional_rows(seconds, (1, 1), (0, 1), 2) == (2, 2)  # too little anyway


def test_parameters_are_served_by_all_members_alike():
    group = int(SKETCH.parameters.group[0])
    servers = served(SKETCH, group, (1, 4))
    assert set(servers.values()) <= {1, 4}
    numbers = np.flatnonzero(SKETCH.parameters.group == group).tolist()
    assert sorted(servers) == numbers


def test_homes_are_layouts_of_nodes_without_common_divisor():
    even, alone = even_rows(16, EVERYBODY, 16), single(16, 2, 16)
    decision = (Action(even), Action(alone), *[Action(even)] * (GROUPING.num_groups - 2))
    found = homes(decision, GROUPING, SKETCH)
    assert all(gcd(*layout) == 1 and len(layout) == 16 for layout in found.layouts)
    assert len(found.home) == len(PROGRAM.nodes)
    for node, group in enumerate(GROUPING.group):
        wanted = (1,) * 16 if group != 1 else single(1, 2, 16)
        assert found.layouts[found.home[node]] == wanted


def test_what_is_served_lives_with_its_state_and_update_on_one_device():
    even = even_rows(16, EVERYBODY, 16)
    decision = (Action(even, Sync.SERVER),) * GROUPING.num_groups
    found = homes(decision, GROUPING, SKETCH)
    names = PROGRAM.input_by_name
    for old, new in PROGRAM.updates:
        source = PROGRAM.input_by_node[old]
        parameter = names[source.parameter].node if source.parameter else old
        if PROGRAM.input_by_node[parameter].role is Role.PARAMETER:
            layout = found.layouts[found.home[parameter]]
            assert sorted(layout)[-2:] == [0, 1]
            assert found.home[old] == found.home[new.node] == found.home[parameter]


def test_factored_parameters_are_named_by_their_nodes():
    even = even_rows(16, EVERYBODY, 16)
    decision = (Action(even, Sync.FACTORS),) * GROUPING.num_groups
    found = homes(decision, GROUPING, SKETCH, frozenset({0}))
    assert found.factors == {int(SKETCH.parameters.node[0])}


def test_a_decision_about_other_groups_is_refused():
    with pytest.raises(InputError, match="an action for each"):
        homes((Action(even_rows(16, EVERYBODY, 16)),), GROUPING, SKETCH)


def test_a_cluster_knows_its_kinds_nodes_and_links():
    cluster = cluster_of(MIXED, KINDS)
    assert cluster.kind.tolist() == [0] * 4 + [1] * 8 + [2] * 4
    assert cluster.node.tolist() == [0] * 4 + [1, 1, 2, 2, 3, 3, 4, 4] + [5, 5, 6, 6]
    assert cluster.s_per_byte[0, 1] < cluster.s_per_byte[0, 4]
    assert cluster.meeting((0, 1, 2, 3)).sizes == (4,)
    assert cluster.meeting(EVERYBODY).sizes == (2, 8)
    assert cluster.meeting((0, 4)).sizes == (1, 2)


def test_a_device_of_no_known_kind_is_refused():
    with pytest.raises(InputError, match="devices among"):
        cluster_of(MIXED, KINDS[:2])
