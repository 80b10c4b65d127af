"""Orders of unlike devices in a pipeline: which are tried, and that the best is found."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import permutations

import pytest

from tests.programs import mlp
from tests.uneven import UNLIMITED, device, link, machine
from weft.machine.model import Machine
from weft.machine.presets import preset
from weft.parallel.pipeline.expert import pipeline_expert
from weft.parallel.pipeline.orders import best_order, orders, which_lost
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.pipeline.unlike import unlike_pipelines
from weft.parallel.planning import plan
from weft.parallel.request import PlanRequest


def nodes(*speeds: float, memory: tuple[float, ...] = (), each: int = 1) -> Machine:
    """Nodes of so fast devices; equally fast ones with equal memory are alike."""
    given = memory or (UNLIMITED,) * len(speeds)
    kinds = [device(f"{speed}", speed, size) for speed, size in zip(speeds, given, strict=True)]
    return machine(*((kind, each) for kind in kinds), inside=1e9, network=1e8)


def remote(where: Machine, number: int, bytes_per_s: float) -> Machine:
    """The same with a slow way to one of the nodes."""
    groups = list(where.groups)
    groups[number] = replace(groups[number], network=link(bytes_per_s))
    return replace(where, groups=tuple(groups))


def test_of_few_blocks_all_orders_are_tried_and_that_of_ranks_first() -> None:
    found = orders(nodes(1.0, 2.0, 3.0, 4.0), (1, 1, 1, 1))
    assert found[0] == (0, 1, 2, 3)
    assert sorted(found) == sorted(permutations(range(4)))


def test_blocks_that_are_alike_do_not_change_places() -> None:
    found = orders(nodes(1.0, 2.0, 1.0), (1, 1, 1))
    assert found == ((0, 1, 2), (0, 2, 1), (1, 0, 2))
    # The network of one of them is another one, so they are no longer alike.
    assert len(orders(remote(nodes(1.0, 2.0, 1.0), 2, 1e3), (1, 1, 1))) == 6


def test_blocks_of_one_node_are_joined_by_its_link_and_so_not_alike() -> None:
    where = nodes(1.0, 2.0, each=4)
    assert len(orders(where, (2, 2, 4))) == 6
    assert len(orders(preset("dgx-h100x4"), (8, 8, 8, 8))) == 1


def test_of_many_blocks_a_few_orders_are_tried() -> None:
    where = remote(nodes(3.0, 1.0, 2.0, 5.0, 4.0, memory=(1e9, 5e9, 4e9, 2e9, 3e9)), 2, 1e3)
    found = orders(where, (1,) * 5)
    assert found[0] == (0, 1, 2, 3, 4)
    assert set(found[1:]) == {
        (4, 3, 2, 1, 0),
        (1, 2, 4, 3, 0),  # by memory
        (3, 4, 0, 2, 1),  # by speed
        (1, 2, 0, 4, 3),
        (1, 0, 3, 4, 2),  # from the one with most memory, the remote one last
    }


@cache
def program():
    return mlp(num_layers=12, batch=256, width=256, slots=("m",))


def test_the_device_with_little_memory_is_not_the_first_stage() -> None:
    """1F1B keeps most micro-batches in the first stage."""
    where = nodes(1.0, 1.0, memory=(0.72e6, UNLIMITED), each=2)
    found = unlike_pipelines(PlanRequest(program=program(), machine=where))
    fits = {own.standing for own in found if own.fits}
    assert fits == {(1, 0)}
    in_order = [own for own in found if own.is_in_rank_order]
    assert len(in_order) == 4
    assert all(own.tightest_group == 0 for own in in_order)


def test_a_limit_that_is_asked_for_holds_for_all_devices() -> None:
    where = nodes(1.0, 1.0, memory=(0.72e6, UNLIMITED), each=2)
    request = PlanRequest(program=program(), machine=where, memory_limit_bytes=0.5e6)
    found = unlike_pipelines(request)
    assert found
    assert not any(own.fits for own in found)


@cache
def deep():
    return mlp(num_layers=6, batch=16, width=128, hidden=lambda _: 512, slots=("m",))


def test_a_slow_way_is_crossed_once_and_not_twice() -> None:
    where = remote(nodes(1.0, 1.001, 1.002), 1, 3e5)
    found = unlike_pipelines(PlanRequest(program=deep(), machine=where))
    three = [own for own in found if own.num_groups == 3]
    assert three[0] is found[0]
    assert three[0].standing[1] != 1
    in_order = next(own for own in three if own.is_in_rank_order)
    assert three[0].prediction.step_s < 0.9 * in_order.prediction.step_s
    (lost,) = which_lost(three[0], found)
    assert lost.step_s == min(own.prediction.step_s for own in found if own.is_in_rank_order)
    assert which_lost(in_order, found) == ()


def test_no_time_is_left_for_other_orders_without_any() -> None:
    where = remote(nodes(1.0, 1.001, 1.002), 1, 3e6)
    request = PlanRequest(program=deep(), machine=where, time_limit_s=0.0)
    assert all(own.is_in_rank_order for own in unlike_pipelines(request))


def test_the_planner_finds_the_order_in_which_a_slow_way_is_crossed_once() -> None:
    where = remote(nodes(1.0, 1.001, 1.002), 1, 3e6)
    found = plan(deep(), where)
    assert isinstance(found, PipelinePlan)
    assert found.standing[1] != 1
    assert found.fits
    (lost,) = [other for other in found.alternatives if "in the order of ranks" in other.name]
    assert lost.step_s > found.prediction.step_s


def test_a_pipeline_of_equal_groups_is_put_where_it_is_fastest() -> None:
    where = remote(nodes(1.0, 1.001, 1.002), 1, 3e6)
    in_order = pipeline_expert(deep(), where, pp=3, micro_batches=4)
    best = best_order(in_order, deep(), where)
    assert best.standing[1] != 1
    assert best.plans == in_order.plans
    assert best.prediction.step_s < in_order.prediction.step_s
    assert best_order(best_order_of_uniform(), deep(), UNIFORM) is best_order_of_uniform()


UNIFORM = preset("dgx-h100x1")


@cache
def best_order_of_uniform() -> PipelinePlan:
    return pipeline_expert(deep(), UNIFORM, pp=2, micro_batches=4, dp=4)


def test_where_no_order_gains_that_of_ranks_stays() -> None:
    where = nodes(1.0, 1.001, 1.002)
    in_order = pipeline_expert(deep(), where, pp=3, micro_batches=4)
    assert best_order(in_order, deep(), where) is in_order


@pytest.mark.parametrize("sizes", [(1, 1, 2), (2, 1, 1)])
def test_groups_of_unequal_size_change_places_too(sizes) -> None:
    where = remote(nodes(1.0, 1.001, 1.002, 1.003), 1, 1e6)
    in_order = pipeline_expert(
        deep(), where, pp=3, micro_batches=4, by_group=[{"dp": size} for size in sizes]
    )
    best = best_order(in_order, deep(), where)
    assert best.group_devices == sizes
    assert best.prediction.step_s <= in_order.prediction.step_s
