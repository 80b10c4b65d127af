"""The simulator against what can be worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.uneven import device, machine, sketch, with_reductions
from weft.core.errors import InputError
from weft.cost.collective import collective_seconds
from weft.parallel.mcts.cluster import cluster_of
from weft.parallel.mcts.decision import Action, Sync, even_rows, single
from weft.parallel.mcts.simulate import Simulator

CHAIN = sketch([(0, 1.0), (1, 2.0)], [(1, 4.0), (0, 2.0)])


def on(of, speeds=(1.0, 1.0), **links):
    """A simulator with one device of each speed, in nodes of their own."""
    kinds = [device(f"kind{k}", speed) for k, speed in enumerate(dict.fromkeys(speeds))]
    by_speed = dict(zip(dict.fromkeys(speeds), kinds, strict=True))
    groups = [(by_speed[speed], 1) for speed in speeds]
    return Simulator(
        replace(of, devices=tuple(kinds)), cluster_of(machine(*groups, **links), kinds)
    )


def alone(at, count=2, rows=4):
    return Action(single(rows, at, count))


def test_a_chain_on_one_device_is_the_sum():
    outcome = on(CHAIN).run((alone(0), alone(0)))
    assert outcome.step_s == 4 * (1 + 2 + 4 + 2)
    assert outcome.busy_s.tolist() == [36.0, 0.0]


def test_a_chain_over_two_devices_pays_for_what_crosses():
    crossing = sketch(
        [(0, 1.0), (1, 2.0)],
        [(1, 4.0), (0, 2.0)],
        crossings=[(0, (1,), 3.0), (2, (3,), 5.0)],
    )
    outcome = on(crossing, network=2.0, latency_s=0.25).run((alone(0), alone(1)))
    assert outcome.step_s == 36 + (4 * 3 / 2 + 0.25) + (4 * 5 / 2 + 0.25)


def test_a_fork_joins_when_the_longer_side_has_come():
    fork = sketch(
        [(0, 1.0), (1, 5.0), (2, 2.0), (0, 1.0)],
        crossings=[(0, (1, 2), 1.0), (1, (3,), 1.0), (2, (3,), 1.0)],
    )
    outcome = on(fork, speeds=(1.0, 1.0, 1.0), network=4.0).run(
        (alone(0, 3), alone(1, 3), alone(2, 3))
    )
    # Messages of a device go in the order of issue: those of the shorter side wait behind.
    assert outcome.step_s == 4 + 1 + max(20 + 1, 1 + 8) + 1 + 4


def test_readers_with_one_layout_are_sent_rows_once():
    twice = sketch([(0, 1.0), (1, 1.0), (2, 1.0)], crossings=[(0, (1, 2), 4.0)])
    outcome = on(twice).run((alone(0), alone(1), alone(1)))
    assert outcome.step_s == 4 + 16 + 8


def test_one_link_is_shared_by_what_goes_over_it():
    both = sketch(
        [(0, 1.0), (0, 0.0), (1, 1.0)],
        crossings=[(0, (2,), 4.0), (1, (2,), 6.0)],
    )
    outcome = on(both).run((alone(0), alone(1)))
    assert outcome.step_s == 4 + 16 + 24 + 4


def test_whoever_takes_rows_up_has_to_be_free():
    busy = sketch([(0, 1.0), (1, 3.0), (0, 1.0), (2, 1.0)], crossings=[(2, (3,), 1.0)])
    outcome = on(busy).run((alone(0), alone(1), alone(1)))
    assert outcome.step_s == max(4 + 4, 12) + 4 + 4


def test_rows_that_are_there_already_do_not_move():
    handed = sketch([(0, 1.0), (1, 1.0)], crossings=[(0, (1,), 1.0)])
    outcome = on(handed).run((Action((3, 1)), Action((2, 2))))
    # One row goes from the first device, which made it at 3, to the second.
    assert outcome.step_s == 3 + 1 + 2


def test_a_ring_all_reduce_ends_after_what_the_model_says():
    step = sketch([(0, 1.0)], [(0, 1.0)], gradients=[(0, 1, 8.0)])
    simulator = on(step, latency_s=0.5)
    outcome = simulator.run((Action((2, 2)),))
    meeting = simulator.cluster.meeting((0, 1))
    assert outcome.step_s == 2 + 2 + collective_seconds("all-reduce", 8.0, meeting)
    assert outcome.step_s == 4 + 8 + 2 * 0.5


def test_a_collective_waits_for_the_last():
    step = sketch([(0, 1.0)], [(0, 1.0)], speeds=(2.0, 1.0), gradients=[(0, 1, 8.0)])
    outcome = on(step, speeds=(2.0, 1.0)).run((Action((2, 2)),))
    assert outcome.step_s == 4 + 8


def test_synchronisation_hides_behind_what_is_left_to_compute():
    hidden = sketch([(0, 1.0)], [(1, 1.0), (0, 3.0)], gradients=[(1, 1, 6.0)])
    outcome = on(hidden).run((Action((2, 2)), Action((2, 2))))
    assert outcome.step_s == 2 + 2 + 6
    held_up = on(hidden, overlap=0.5).run((Action((2, 2)), Action((2, 2))))
    assert held_up.step_s == 2 + 2 + 6 + 0.5 * 6


def test_one_device_synchronises_nothing():
    step = sketch([(0, 1.0)], [(0, 1.0)], gradients=[(0, 1, 8.0)])
    assert on(step).run((alone(1),)).step_s == 8


def test_a_server_takes_in_and_gives_out_for_each_of_the_others():
    step = sketch([(0, 1.0)], [(0, 1.0)], gradients=[(0, 1, 8.0)])
    outcome = on(step, speeds=(1.0,) * 3, network=2.0).run((Action((2, 1, 1), Sync.SERVER),))
    assert outcome.step_s == 2 * 8 / 2 + 2 + 2 + 2 * 8 / 2


def test_parameters_are_served_one_after_the_other():
    step = sketch([(0, 1.0)], [(0, 1.0)], gradients=[(0, 1, 8.0), (0, 1, 8.0)])
    outcome = on(step, network=2.0).run((Action((2, 2), Sync.SERVER),))
    # Each has a server of its own, and all of a group take part in every exchange.
    assert outcome.step_s == 2 * 8 / 2 + 2 + 2 + 2 * 8 / 2


def test_factors_are_gathered_where_that_is_less():
    step = sketch([(0, 1.0)], [(0, 1.0)], gradients=[(0, 1, 80.0)], factor_row_bytes=1.0)
    simulator = on(step)
    outcome = simulator.run((Action((2, 2), Sync.FACTORS),))
    assert outcome.step_s == 4 + 2 and outcome.factored == {0}
    wide = on(
        replace(step, parameters=replace(step.parameters, factor_row_bytes=np.asarray([99.0])))
    )
    assert wide.run((Action((2, 2), Sync.FACTORS),)).factored == frozenset()


def test_whole_products_take_longer_than_parts():
    step = sketch([(0, 1.0)], [(0, 1.0)], gradients=[(0, 1, 80.0)], factor_row_bytes=1.0)
    product_s = np.arange(5.0)[None, None, :]
    step = replace(step, parameters=replace(step.parameters, product_s=product_s))
    outcome = on(step).run((Action((3, 1), Sync.FACTORS),))
    # The second device computes one row of four; messages are as long as the longest.
    assert outcome.step_s == 3 + 3 + 3 + 3


def test_sums_over_the_batch_keep_devices_in_step():
    step = with_reductions(sketch([(0, 1.0), (0, 1.0)]), 0, 2, 8.0)
    outcome = on(step, latency_s=0.5).run((Action((3, 1)),))
    assert outcome.step_s == 3 + 2 * (4 + 1.0) + 3


def test_sums_queue_up_behind_gradients_that_are_complete_before():
    step = with_reductions(
        sketch([(0, 1.0)], [(0, 1.0), (0, 1.0)], gradients=[(0, 1, 20.0)]), 1, 1, 8.0
    )
    both = (Action((2, 2)),)
    after = on(step).run(both).step_s
    assert after == 2 + (2 + 8) + max(2, 20)
    its = replace(step.parameters, turn=np.asarray([0]))
    assert on(replace(step, parameters=its)).run(both).step_s == 2 + 2 + 20 + 8 + 2


def test_memory_is_what_lasts_and_what_is_held():
    held = np.asarray([[10.0, 10.0, 0.0]])
    step = sketch([(0, 1.0)], [(0, 1.0)], gradients=[(0, 1, 8.0)])
    step = replace(step, held_row_bytes=held, passing_row_bytes=np.asarray([0.0, 5.0]))
    outcome = on(step).run((Action((3, 1)),))
    assert outcome.peak_bytes.tolist() == [8 + 3 * 15, 8 + 15]


def test_a_copy_of_rows_is_kept_until_its_last_reader():
    step = sketch([(0, 1.0), (1, 1.0), (0, 1.0), (1, 1.0)], crossings=[(0, (1, 3), 2.0)])
    outcome = on(step).run((alone(0), alone(1)))
    assert outcome.peak_bytes.tolist() == [0.0, 8.0]


def test_too_little_memory_is_noticed():
    small = device("kind0", memory=7.0)
    step = sketch([(0, 1.0)], [(0, 1.0)], gradients=[(0, 1, 8.0)])
    step = replace(step, devices=(small,))
    simulator = Simulator(step, cluster_of(machine((small, 2)), [small]))
    assert not simulator.run((Action((2, 2)),)).fits
    assert on(step).run((Action((2, 2)),)).fits


def test_served_state_is_with_the_server_alone():
    step = sketch([(0, 1.0)], [(0, 1.0)], gradients=[(0, 1, 8.0)])
    step = replace(step, parameters=replace(step.parameters, state_bytes=np.asarray([100.0])))
    outcome = on(step).run((Action((2, 2), Sync.SERVER),))
    assert outcome.peak_bytes.tolist() == [108.0, 8.0]


def test_feedback_tells_how_long_groups_take_and_wait():
    crossing = sketch([(0, 1.0), (1, 2.0), (0, 3.0)], crossings=[(0, (1,), 1.0)])
    outcome = on(crossing).run((alone(0), alone(1)), feedback=True)
    assert outcome.span_s.tolist() == [4 + 12, 8]
    assert outcome.idle_s[0] == 4.0
    assert on(crossing).run((alone(0), alone(1))).span_s.size == 0


def test_rows_for_other_machines_are_refused():
    with pytest.raises(InputError, match="4 rows shared out over 2 devices"):
        on(CHAIN).run((Action((4,)), Action((4,))))
    with pytest.raises(InputError, match="4 rows shared out over 2 devices"):
        on(CHAIN).run((Action((2, 1)), Action((2, 2))))
    with pytest.raises(InputError, match="an action for each of 2 groups"):
        on(CHAIN).run((Action((2, 2)),))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), faster=st.floats(1.0, 8.0), overlap=st.floats(0.0, 1.0))
def test_a_faster_network_makes_no_step_longer(data, faster, overlap):
    groups = 3
    step = sketch(
        [(0, 1.0), (1, 2.0), (2, 1.0), (0, 1.0)],
        [(0, 2.0), (2, 2.0), (1, 4.0), (0, 2.0)],
        rows=6,
        crossings=[(0, (1, 2, 6), 1.0), (1, (3,), 2.0), (2, (3, 5), 1.0), (4, (5, 6), 1.0)],
        gradients=[(0, 7, 9.0), (1, 6, 30.0), (2, 5, 4.0)],
    )
    actions = [
        Action((2, 2, 2)),
        Action((1, 2, 3)),
        Action((1, 2, 3), Sync.SERVER),
        Action((0, 6, 0)),
        Action((3, 0, 3)),
        Action((0, 0, 6)),
        Action(even_rows(6, (0, 1), 3), Sync.SERVER),
    ]
    decision = tuple(data.draw(st.sampled_from(actions)) for _ in range(groups))
    slow = on(step, speeds=(1.0,) * 3, network=1.0, latency_s=0.1, overlap=overlap)
    fast = on(step, speeds=(1.0,) * 3, network=faster, latency_s=0.1, overlap=overlap)
    assert fast.run(decision).step_s <= slow.run(decision).step_s + 1e-9
