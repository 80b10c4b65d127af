"""Over which links ranks meet, wherever they are."""

from __future__ import annotations

from dataclasses import replace

from tests.uneven import device, link, machine
from weft.machine.meeting import meeting
from weft.machine.presets import preset
from weft.machine.topology import axis_group, reference_s

PAIR = preset("dgx-h100x2")
MIXED = preset("mixed-v100-p100-1080ti")


def test_ranks_of_one_node_meet_over_its_link_alone() -> None:
    found = meeting(PAIR, [1, 3, 5])
    assert (found.sizes, found.links) == ((3,), (PAIR.groups[0].link,))


def test_all_ranks_meet_as_a_mesh_axis_of_them_does() -> None:
    assert meeting(PAIR, range(16)) == axis_group(PAIR, (16,), 0)
    whole = meeting(MIXED, range(16))
    assert whole.num_devices >= 16
    assert whole.links == axis_group(MIXED, (16,), 0).links


def test_the_node_with_fewest_of_them_counts() -> None:
    assert meeting(PAIR, [0, 1, 2, 8]).sizes == (1, 4)


def test_links_are_compared_by_how_long_some_bytes_take_and_not_by_rate_alone() -> None:
    groups = machine((device(), 1), (device(), 1), (device(), 1)).groups
    # A link of many bytes a second that takes long to begin with is the slower one here.
    ways = (link(1e9, 1e-6), link(1e10, 1.0), link(1e9, 1e-6))
    three = replace(
        machine((device(), 1)),
        groups=tuple(replace(g, network=way) for g, way in zip(groups, ways, strict=True)),
    )
    assert max(ways, key=reference_s) is ways[1]
    assert meeting(three, [0, 1]).links[1] is ways[1]
    assert meeting(three, [0, 2]).links[1] is ways[0]


def test_a_slow_way_counts_between_ranks_that_are_not_the_first() -> None:
    base = machine((device(), 1), (device(), 1), (device(), 1), network=1e9)
    slow = link(1.0)
    groups = (*base.groups[:2], replace(base.groups[2], network=slow))
    assert meeting(replace(base, groups=groups), [0, 1, 2]).links[1] is slow
