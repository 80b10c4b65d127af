"""What transfers between stages take: the device that has most to send or to take up decides."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from tests.programs import mlp
from weft.machine.presets import preset
from weft.parallel.pipeline.crossing import crossing_seconds, messages_s
from weft.parallel.pipeline.expert import pipeline_expert
from weft.parallel.pipeline.plan import PipelinePlan, StagedProgram

MACHINE = preset("dgx-h100x2")
NODE, NETWORK = MACHINE.groups[0].link, MACHINE.network


def over(link, count: int, num_bytes: float) -> float:
    return count * (link.latency_s.value + num_bytes / link.bytes_per_s.value)


def test_a_message_pays_for_its_link() -> None:
    assert messages_s([(0, 1, 1e6)], MACHINE) == pytest.approx(over(NODE, 1, 1e6))
    assert messages_s([(0, 8, 1e6)], MACHINE) == pytest.approx(over(NETWORK, 1, 1e6))
    assert messages_s([(3, 3, 1e6)], MACHINE) == 0.0
    assert messages_s([], MACHINE) == 0.0


def test_pairs_of_devices_send_at_once() -> None:
    assert messages_s([(0, 2, 1e6), (1, 3, 1e6)], MACHINE) == messages_s([(0, 2, 1e6)], MACHINE)


@pytest.mark.parametrize("messages", [[(0, 1), (0, 2), (0, 3)], [(1, 0), (2, 0), (3, 0)]])
def test_one_device_sends_and_takes_up_one_after_the_other(messages) -> None:
    found = messages_s([(*pair, 1e6) for pair in messages], MACHINE)
    assert found == pytest.approx(over(NODE, 3, 1e6))


def test_the_link_of_a_node_and_the_network_work_at_once() -> None:
    both = messages_s([(7, 6, 1e6), (7, 8, 1e6)], MACHINE)
    assert both == messages_s([(7, 8, 1e6)], MACHINE)


@cache
def program():
    return mlp(8, batch=4096, width=1024, hidden=lambda _: 4096, slots=("m",))


def plan(*by_group) -> PipelinePlan:
    return pipeline_expert(program(), MACHINE, pp=2, micro_batches=8, by_group=by_group)


def sent_forward_s(found: PipelinePlan) -> float:
    staged = StagedProgram(program(), found.micro_batches, found.cut)
    return crossing_seconds(found, staged, MACHINE)[0][0]


STREAM_BYTES = 4096 // 8 * 1024 * 4
"""Activations of a micro-batch between two layers, in f32."""


def test_a_batch_cut_alike_goes_part_by_part() -> None:
    found = sent_forward_s(plan({"dp": 4}, {"dp": 4}))
    assert found == pytest.approx(over(NODE, 1, STREAM_BYTES / 4))


def test_one_device_sends_every_part_to_several() -> None:
    found = sent_forward_s(plan({}, {"dp": 4}))
    assert found == pytest.approx(over(NODE, 4, STREAM_BYTES / 4))


def test_several_that_want_the_whole_get_it_from_one_after_the_other() -> None:
    found = sent_forward_s(plan({}, {"tp": 4}))
    assert found == pytest.approx(over(NODE, 4, STREAM_BYTES))


def test_faster_groups_have_more_to_do_and_each_has_a_peak() -> None:
    found = plan({}, {"dp": 2, "tp": 2})
    assert found.group_devices == (1, 4)
    assert [found.group_of(rank) for rank in range(5)] == [0, 1, 1, 1, 1]
    assert [tuple(found.ranks_of(group)) for group in (0, 1)] == [(0,), (1, 2, 3, 4)]
    assert found.groups_in_words == "groups of one device and of 4 devices as 2x2"
    assert len(found.prediction.group_peak_bytes) == 2
    first, second = (sum("layers" in n.scope for n in part.program.nodes) for part in stages(found))
    assert 2 * first < second


def test_on_an_uneven_machine_each_stage_takes_what_its_own_devices_take() -> None:
    mixed = preset("mixed-v100-p100-1080ti")
    groups = tuple(replace(g, devices_per_node=1, num_nodes=2) for g in mixed.groups[:2])
    uneven = replace(mixed, groups=groups)
    found = pipeline_expert(program(), uneven, pp=4, micro_batches=8).prediction.stages
    assert len({group.device.name for group in groups}) == 2
    assert 0 < found[1].forward_s < found[2].forward_s


def test_a_group_across_nodes_pays_for_the_network() -> None:
    inside = plan({"dp": 2}, {"tp": 4}).prediction.stages[1]
    across = pipeline_expert(
        program(), with_nodes(4), pp=2, micro_batches=8, by_group=[{"dp": 2}, {"tp": 4}]
    )
    assert across.prediction.stages[1].forward_s > inside.forward_s


def with_nodes(size: int):
    """The machine with nodes of so many devices."""
    return replace(MACHINE, groups=(replace(MACHINE.groups[0], devices_per_node=size),))


def stages(found: PipelinePlan):
    return StagedProgram(program(), found.micro_batches, found.cut).stages
