"""Laws of which links a mesh axis crosses."""

import math
from dataclasses import replace
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.core.provenance import derived
from weft.machine.model import Machine
from weft.machine.presets import preset
from weft.machine.topology import (
    Group,
    axis_group,
    link_between,
    nodes_of,
    smallest_machine,
    with_nodes,
    with_nodes_of,
)

H100 = preset("dgx-h100x8")
MIXED = preset("mixed-v100-p100-1080ti")


def counted(nodes: list[int], shape: tuple[int, ...], axis: int) -> int:
    """Smallest number of members of one group on a node, by walking over every group."""
    size, stride = shape[axis], math.prod(shape[axis + 1 :])
    smallest = size
    for first in range(math.prod(shape)):
        if first // stride % size == 0:
            members = [nodes[first + i * stride] for i in range(size)]
            smallest = min(smallest, *(len(list(g)) for _, g in groupby(members)))
    return smallest


shapes = (
    st.lists(st.integers(1, 9), min_size=1, max_size=4)
    .map(tuple)
    .filter(lambda shape: math.prod(shape) <= 64)
)


@given(shapes, st.data())
def test_inside_is_the_least_that_any_group_shares_a_node(
    shape: tuple[int, ...], data: st.DataObject
) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    group = axis_group(H100, shape, axis)
    inside = counted([rank // 8 for rank in range(64)], shape, axis)
    assert group.sizes == (inside, math.ceil(shape[axis] / inside))


@given(shapes.filter(lambda shape: math.prod(shape) <= 16), st.data())
def test_groups_of_nodes_of_different_size_are_walked_in_order(
    shape: tuple[int, ...], data: st.DataObject
) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    # One node of four V100, four of two 1080 Ti, two of two P100.
    nodes = [0] * 4 + [1 + rank // 2 for rank in range(12)]
    inside = counted(nodes, shape, axis)
    assert axis_group(MIXED, shape, axis).sizes[0] == inside


def test_an_axis_that_straddles_a_node_counts_its_worst_node() -> None:
    # Ranks 0, 5 and 10 of groups of three: the third stands alone on the second node.
    assert axis_group(H100, (3, 5), 0).sizes == (1, 3)


def test_neighbours_on_the_last_axis_share_a_node() -> None:
    assert axis_group(H100, (8, 8), 1).sizes == (8, 1)
    assert axis_group(H100, (8, 8), 0).sizes == (1, 8)
    assert axis_group(H100, (2, 2, 2), 0).sizes == (2, 1)


def test_an_axis_over_everything_meets_a_whole_node_and_crosses_all() -> None:
    assert axis_group(preset("dgx-h100x512"), (4096,), 0).sizes == (8, 512)


def test_inside_and_across_go_over_the_link_and_the_network() -> None:
    group = axis_group(H100, (64,), 0)
    assert group.links == (H100.groups[0].link, H100.network)


def test_an_uneven_mesh_takes_the_slowest_link_that_it_touches() -> None:
    fast, slow = MIXED.groups[0].link, MIXED.groups[1].link
    assert axis_group(MIXED, (4,), 0).links[0] is fast
    assert axis_group(MIXED, (6,), 0).links[0] is slow


def test_an_axis_waits_for_the_slowest_way_to_the_network_that_it_touches() -> None:
    # The four V100s share what two devices of the other machines share.
    slow, fast = MIXED.network_of(MIXED.groups[0]), MIXED.network
    assert slow.bytes_per_s.value < fast.bytes_per_s.value
    assert axis_group(MIXED, (16,), 0).links[1] is slow
    others = replace(MIXED, groups=MIXED.groups[1:])
    assert axis_group(others, (12,), 0).links[1] is fast


@given(st.integers(0, 15), st.integers(0, 15))
def test_between_two_nodes_the_slower_of_their_ways_counts(first: int, second: int) -> None:
    nodes = [(0, 0)] * 4 + [(1, 1 + n // 2) for n in range(8)] + [(2, 5 + n // 2) for n in range(4)]
    slow = MIXED.network_of(MIXED.groups[0])
    if nodes[first] == nodes[second]:
        expected = MIXED.groups[nodes[first][0]].link
    else:
        expected = slow if min(first, second) < 4 else MIXED.network
    assert link_between(MIXED, first, second) is expected


def test_nodes_of_one_group_meet_over_their_own_way() -> None:
    own = replace(H100.network, bytes_per_s=derived(1e9, "B/s", "test"))
    machine = replace(H100, groups=(replace(H100.groups[0], network=own),))
    assert link_between(machine, 0, 8) is own
    assert axis_group(machine, (64,), 0).links[1] is own


def test_a_way_of_its_own_stays_with_a_group_that_grows_or_is_cut() -> None:
    own = MIXED.groups[0].network
    assert own is not None
    assert with_nodes(MIXED, 9).groups[0].network is own
    assert [g.network for g in with_nodes_of(MIXED, ((0, 2, 1), (2, 1, 1))).groups] == [own, None]


@pytest.mark.parametrize("shape", [(65,), (16, 8)])
def test_a_mesh_larger_than_the_machine_names_both(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="dgx-h100x8") as caught:
        axis_group(H100, shape, 0)
    assert f"of {math.prod(shape)}" in caught.value.got


@pytest.mark.parametrize(("shape", "axis"), [((8,), 1), ((8,), -1), ((8, 0), 0)])
def test_an_axis_that_is_not_there_is_refused(shape: tuple[int, ...], axis: int) -> None:
    with pytest.raises(InputError, match="axis of a mesh"):
        axis_group(H100, shape, axis)


def test_a_group_needs_a_link_for_each_size() -> None:
    with pytest.raises(InputError, match="one size of at least 1 for each link"):
        Group(sizes=(8, 2), links=(H100.network,))


def total_bytes(machine: Machine) -> float:
    return sum(g.num_devices * g.device.memory_bytes.value for g in machine.groups)


@given(st.floats(1.0, 1e14), st.sampled_from(["dgx-h100x2", "mixed-v100-p100-1080ti"]))
@settings(max_examples=50)
def test_the_smallest_machine_holds_the_bytes_and_one_node_less_does_not(
    wanted: float, name: str
) -> None:
    machine = preset(name)
    grown = smallest_machine(machine, wanted)
    assert total_bytes(grown) >= wanted
    if grown is not machine:
        node = max(g.devices_per_node * g.device.memory_bytes.value for g in machine.groups)
        assert total_bytes(grown) - node < wanted


def test_the_smallest_machine_of_a_preset_is_a_preset() -> None:
    grown = smallest_machine(preset("dgx-h100x2"), 1e13)
    assert grown.digest == preset(grown.name).digest


def test_a_machine_that_holds_enough_stays() -> None:
    assert smallest_machine(H100, 1.0) is H100


@given(st.data())
def test_nodes_of_ranks_hold_every_rank_once(data: st.DataObject) -> None:
    first = data.draw(st.integers(0, MIXED.num_devices - 1))
    ranks = range(first, data.draw(st.integers(first + 1, MIXED.num_devices)))
    nodes = nodes_of(MIXED, ranks)
    found = with_nodes_of(MIXED, nodes)
    assert found.num_devices == len(ranks)
    names = [g.device.name for g in MIXED.groups for _ in range(g.num_devices)]
    kept = [g.device.name for g in found.groups for _ in range(g.num_devices)]
    assert kept == [names[rank] for rank in ranks]


def test_ranks_that_cross_nodes_meet_over_the_network() -> None:
    inside = with_nodes_of(H100, nodes_of(H100, range(8)))
    across = with_nodes_of(H100, nodes_of(H100, range(6, 14)))
    assert axis_group(inside, (8,), 0).sizes == (8, 1)
    assert axis_group(across, (8,), 0).sizes == (2, 4)
    with pytest.raises(InputError, match="ranks 60 to 64"):
        nodes_of(H100, range(60, 65))
