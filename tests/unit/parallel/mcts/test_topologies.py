"""Random machines."""

import numpy as np

from weft.machine.topology import link_between
from weft.machine.yaml import machine_from_text, machine_to_text
from weft.parallel.mcts.cluster import cluster_of
from weft.parallel.mcts.topologies import KINDS, random_machine


def machines(count, needs=1e9, seed=0):
    generator = np.random.default_rng(seed)
    return [random_machine(generator, needs) for _ in range(count)]


def test_they_have_up_to_four_groups_and_differ():
    drawn = machines(60)
    assert {len(m.groups) for m in drawn} == {2, 3, 4}
    assert all(m.num_devices >= 4 for m in drawn)
    assert len({m.digest for m in drawn}) > 55


def test_they_are_those_of_their_seed():
    assert [m.digest for m in machines(5)] == [m.digest for m in machines(5)]
    assert [m.digest for m in machines(5)] != [m.digest for m in machines(5, seed=1)]


def test_a_large_step_gets_more_room():
    small, large = (np.mean([m.num_devices for m in machines(60, needs)]) for needs in (1e6, 200e9))
    assert large > small


def test_cards_of_a_machine_share_its_way_to_the_network():
    for machine in machines(20):
        count = machine.groups[0].num_devices
        between = link_between(machine, 0, count).bytes_per_s.value
        ways = [g.network.bytes_per_s.value for g in machine.groups[:2]]
        assert between == min(ways)
        assert ways[0] * count in (2.81e9, 5e9)


def test_their_cards_are_of_known_kinds_and_files_hold_them():
    for machine in machines(10):
        assert set(cluster_of(machine, KINDS).kind.tolist()) <= {0, 1, 2}
        assert machine_from_text(machine_to_text(machine), "file").digest == machine.digest
