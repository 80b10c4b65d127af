"""Lengths of pipelines, against a schedule that is played through, and the shortest one."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from weft.core.errors import InputError
from weft.parallel.dqn.chain import Chain, Line, best_cuts, device_cuts, pipeline_seconds
from weft.parallel.pipeline.schedule import order
from weft.parallel.pipeline.timing import StageTime, pipeline_time


def chain(seconds, crossing=0.0, weights=0.0):
    size = len(seconds)
    return Chain(
        seconds=np.asarray(seconds, dtype=np.float64),
        crossing_bytes=np.broadcast_to(np.asarray(crossing, dtype=np.float64), size - 1).copy(),
        weight_bytes=np.broadcast_to(np.asarray(weights, dtype=np.float64), size).copy(),
    )


def line(nodes=2, per_node=2, inside=1e9, network=1e8):
    return Line(
        nodes=nodes, per_node=per_node, inside_bytes_per_s=inside, network_bytes_per_s=network
    )


def test_even_stages_without_transfers_take_what_a_schedule_takes():
    own = chain([1.0, 1.0, 1.0, 1.0])
    stage = StageTime(forward_s=1 / 4 / 3, inputs_s=1 / 4 / 3, weights_s=1 / 4 / 3)
    played = pipeline_time(order("1f1b", 2, 2, 4), [stage, stage]).step_s
    length = pipeline_seconds(own, line(), ((2, 2),), micro_batches=4)
    assert length == pytest.approx(played)


def test_gradients_of_replicas_are_reduced_in_a_ring():
    own = chain([1.0, 1.0], weights=[4e8, 0.0])
    # One device for the second stage, three for the first, which spans two nodes.
    length = pipeline_seconds(own, line(), ((1, 3),), micro_batches=1)
    assert length == pytest.approx(1 / 3 + 1 + 2 * (2 / 3) * 4e8 / 1e8)


def test_links_inside_of_nodes_are_shared_out_and_the_network_is_not():
    own = chain([1.0, 1.0], crossing=1e8)
    apart = pipeline_seconds(own, line(per_node=2), ((1, 2),), micro_batches=1)
    beside = pipeline_seconds(own, line(nodes=1, per_node=4), ((1, 2),), micro_batches=1)
    assert apart == pytest.approx(1.0 + 2 * 1e8 / 1e8)
    assert beside == pytest.approx(1.0 + 2 * 1e8 / (2 * 1e9))


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_the_shortest_is_the_shortest_of_all(stages):
    generator = np.random.default_rng(stages)
    own = Chain(
        seconds=generator.uniform(0.1, 1, 9),
        crossing_bytes=generator.uniform(0, 1e7, 8),
        weight_bytes=generator.uniform(0, 1e7, 9),
    )
    on = line(nodes=3, per_node=2)
    found, length = best_cuts(own, on, stages, micro_batches=4, radius=1)
    every = [
        pipeline_seconds(own, on, tuple(zip(pieces, devices, strict=True)), 4)
        for devices in device_cuts(on, stages, 1)
        for pieces in combinations(range(1, 9), stages - 1)
    ]
    assert length == pytest.approx(min(every))
    assert pipeline_seconds(own, on, found, 4) == pytest.approx(length)


@pytest.mark.parametrize(
    "cuts", [((0, 1),), ((4, 1),), ((2, 0),), ((2, 4),), ((2, 2), (2, 3)), ((2, 2), (3, 2))]
)
def test_every_stage_needs_a_piece_and_a_device(cuts):
    with pytest.raises(InputError, match="every stage needs"):
        pipeline_seconds(chain([1.0] * 4), line(), cuts, 4)


@pytest.mark.parametrize(
    ("seconds", "crossing", "weights"),
    [([1.0], 0, 0), ([0.0, 0.0], 0, 0), ([1.0, -1.0], 0, 0), ([1.0, 1.0], np.nan, 0)],
)
def test_what_is_no_chain_is_refused(seconds, crossing, weights):
    with pytest.raises(InputError):
        chain(seconds, crossing, weights)


def test_lines_have_devices_and_bandwidth():
    for wrong in ({"nodes": 0}, {"inside": 0.0}, {"network": -1.0}):
        with pytest.raises(InputError):
            line(**wrong)


@pytest.mark.parametrize("stages", [1, 5])
def test_two_to_four_stages_are_searched(stages):
    with pytest.raises(InputError, match="2 to 4 stages"):
        best_cuts(chain([1.0] * 8), line(4, 2), stages)
