"""What becomes of the figures that ranks of an uneven cluster report."""

import pytest

from weft.cost.roofline import CACHED_BYTES
from weft.machine.topology import axis_group, link_between
from weft.runtime.cluster import Cluster, ClusterRank
from weft.runtime.probe_cluster import circles, machine_of

FAST = ClusterRank(cores=0.5, bytes_per_s=2e8)
SLOW = ClusterRank(cores=0.25, bytes_per_s=5e7)
SLOWEST = ClusterRank(cores=0.125, bytes_per_s=2e7)
FOUR = Cluster(name="four", ranks=(FAST, FAST, SLOW, SLOWEST))

LARGE = 2.0**23
LARGE_FLOPS, LARGE_BYTES = 2 * 2048 * 1024 * 2048, 4 * (2 * 2048 * 1024 + 2048 * 2048)
LARGE_WEIGHT = LARGE_BYTES + 1.5 * (LARGE_BYTES - CACHED_BYTES)
LATENCY_S = {FAST: 1e-4, SLOW: 2e-4, SLOWEST: 4e-4}


def way_s(one, other, num_bytes):
    """Time of a message by the slower of two ways."""
    slow = max(one, other, key=LATENCY_S.__getitem__)
    return LATENCY_S[slow] if num_bytes < 100 else num_bytes / slow.bytes_per_s


def reported(cluster, got=1.0):
    """What each rank would report if it got exactly its share times `got`."""
    found = []
    for rank, given in enumerate(cluster.ranks):
        share = given.cores * got
        items = {
            "share": [share],
            "memory": [1e9],
            "launch": [2e-6 / share],
            "stream": [1.2e9, 0.1 / share],
            "product|f32|512|512|512|nn": [2 * 512**3 / (8e10 * share)],
            "operator|traffic|1024": [1e4, 1e-6 / share],
            "operator|tanh.default|1024": [1e4, 1e-5 / share],
            "operator|sum.columns|1024": [1e4, 2e-5 / share],
            "large|f32|2048|1024|2048|nn": [(LARGE_FLOPS / 8e10 + LARGE_WEIGHT * 1e-10) / share],
            "overlap": [0.25 + 0.125 * rank],
        }
        for one in range(cluster.num_ranks):
            for other in range(one + 1, cluster.num_ranks):
                for size in (4.0, LARGE):
                    took = way_s(cluster.ranks[one], cluster.ranks[other], size)
                    key = f"way|{one}|{other}|{int(size)}"
                    items[key] = [size, took if rank in (one, other) else 0.0]
        for number, circle in enumerate(circles(cluster)):
            slowest = min(cluster.ranks[r].bytes_per_s for r in circle)
            for size in (2.0**12, 2.0**20):
                took = size / slowest * (1 + 0.1 * rank)
                key = f"circle|{number}|all-gather|{int(size)}"
                items[key] = [size, took if rank in circle else 0.0]
        found.append(items)
    return found


def test_circles_lose_the_slowest_way_one_after_the_other():
    assert circles(FOUR) == [[0, 1], [0, 1, 2], [0, 1, 2, 3]]
    assert circles(Cluster(name="pair", ranks=(FAST, SLOW))) == [[0, 1]]
    assert circles(Cluster(name="one", ranks=(FAST,))) == []


def test_alike_neighbours_are_nodes_of_one_group_in_order_of_rank():
    machine = machine_of(FOUR, reported(FOUR))
    assert [(g.num_nodes, g.devices_per_node) for g in machine.groups] == [(2, 1), (1, 1), (1, 1)]
    assert (machine.name, machine.num_devices) == ("four", 4)
    rates = [g.device.matmul_flops_per_s["f32"].value for g in machine.groups]
    assert rates[0] / rates[2] == pytest.approx(4, rel=1e-3)
    apart = Cluster(name="apart", ranks=(FAST, SLOW, FAST))
    assert [g.num_nodes for g in machine_of(apart, reported(apart)).groups] == [1, 1, 1]


def test_a_rank_has_the_way_that_it_shows_with_its_fastest_peer():
    machine = machine_of(FOUR, reported(FOUR))
    ways = [machine.network_of(group) for group in machine.groups]
    assert [way.bytes_per_s.value for way in ways] == pytest.approx([2e8, 5e7, 2e7])
    assert [way.latency_s.value for way in ways] == pytest.approx([1e-4, 2e-4, 4e-4])
    # The machine's is the slowest, whose ranks therefore need none of their own.
    assert machine.network is ways[2]
    assert [group.network is None for group in machine.groups] == [False, False, True]


def test_messages_between_any_two_ranks_take_what_was_measured():
    machine = machine_of(FOUR, reported(FOUR))
    for one in range(4):
        for other in range(4):
            if one != other:
                link = link_between(machine, one, other)
                took = way_s(FOUR.ranks[one], FOUR.ranks[other], LARGE)
                assert LARGE / link.bytes_per_s.value == pytest.approx(took)


def test_collectives_take_what_the_last_of_their_circle_needed():
    machine = machine_of(FOUR, reported(FOUR))
    for size in (2, 4):
        (curve,) = axis_group(machine, (size,), 0).links[1].curves
        slowest = min(rank.bytes_per_s for rank in FOUR.ranks[:size])
        assert (curve.collective, curve.num_devices) == ("all-gather", size)
        last_s = 2**20 / slowest * (1 + 0.1 * (size - 1))
        assert curve.curve.seconds_at(2.0**20) == pytest.approx(last_s)


def test_a_rank_that_none_can_keep_up_with_has_the_way_of_its_fastest_peer():
    cluster = Cluster(name="three", ranks=(FAST, SLOW, SLOWEST))
    found = reported(cluster)
    # What it shows is what its peer shows, but for noise, which must not make it the slower one.
    key = f"way|0|1|{int(LARGE)}"
    found[0][key] = [LARGE, 1.1 * found[0][key][1]]
    fast, slow, slowest = machine_of(cluster, found).groups
    assert fast.network == slow.network
    assert slowest.network is None
    (curve,) = machine_of(cluster, found).network_of(slow).curves
    assert curve.num_devices == 2


def test_a_machine_of_one_rank_is_a_machine():
    cluster = Cluster(name="one", ranks=(FAST,))
    assert machine_of(cluster, reported(cluster)).num_devices == 1


def test_sources_say_what_a_rank_really_got_and_notes_if_that_was_too_little():
    assert "0.250 of a core" in machine_of(FOUR, reported(FOUR)).groups[1].device.launch_s.source
    assert "busy" not in machine_of(FOUR, reported(FOUR, 0.95)).notes
    busy = machine_of(FOUR, reported(FOUR, 0.5)).notes
    assert "rank 0 got 0.250 of 0.5" in busy
    assert "rank 3 got 0.062 of 0.125" in busy


def test_overlap_is_the_mean_of_all_ranks():
    assert machine_of(FOUR, reported(FOUR)).overlap.value == pytest.approx(0.4375)


def test_large_products_and_column_sums_are_read():
    for group in machine_of(FOUR, reported(FOUR)).groups:
        assert group.device.matmul_traffic is not None
        assert group.device.matmul_traffic.value == pytest.approx(2.5, abs=0.25)
        assert group.device.operator_curves["sum.columns"].seconds_at(1e4) > 0
