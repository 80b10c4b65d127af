"""Branches side by side: found, put in an order that stages are runs of, and cut by stages."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from math import inf

import pytest

from tests.pipelines import run_pipeline
from tests.programs import random_inputs, towers, transformer
from weft.machine.model import Machine
from weft.machine.presets import preset
from weft.parallel.depth import undivided
from weft.parallel.exact.pipelines import search as searching
from weft.parallel.exact.pipelines.branches import Branches, depth_first
from weft.parallel.exact.pipelines.configs import Config
from weft.parallel.exact.pipelines.decide import Desk
from weft.parallel.exact.pipelines.found import Found, Placing
from weft.parallel.exact.pipelines.partition import Runs, partition
from weft.parallel.exact.pipelines.search import PipelineSearch
from weft.parallel.explaining import explain
from weft.parallel.pins import parse_pin
from weft.parallel.pipeline.in_pieces import Rows
from weft.parallel.pipeline.piece_costs import piece_costs
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.pipeline.stages import forward_nodes
from weft.parallel.plan import Level
from weft.parallel.planning import plan
from weft.parallel.request import PlanRequest
from weft.program.evaluate import evaluate
from weft.program.graph import Program
from weft.program.types import DType

CONFIG = Config(groups=2, data=1, inner=1, micro_batches=8, rows=512)


def slow_network() -> Machine:
    """Two nodes of one device on 10 Gb/s Ethernet."""
    fast = preset("dgx-a100x2")
    network = replace(
        fast.network, bytes_per_s=replace(fast.network.bytes_per_s, value=1.25e9 * 0.85)
    )
    return replace(
        fast, network=network, groups=tuple(replace(g, devices_per_node=1) for g in fast.groups)
    )


SLOW = slow_network()


@cache
def interleaved(num_layers: int = 4) -> Program:
    return towers(num_layers, batch=4096, width=1024, hidden=(4096, 4096), slots=("m",))


@cache
def deep() -> Program:
    return transformer(num_layers=8, batch=16, length=64, width=64, vocabulary=64, slots=("m",))


def rows_of(program: Program, *pins: str) -> Rows:
    return Rows(undivided(program), 8, SLOW, [parse_pin(text) for text in pins])


def sides(rows: Rows, order: list[int]) -> list[str]:
    """The towers in the order of their products, each run of one once."""
    found: list[str] = []
    for number in order:
        node = rows.part.nodes[number]
        side = node.scope.split(".")[0] if node.op == "einsum" else ""
        if side in ("left", "right", "third") and found[-1:] != [side]:
            found.append(side)
    return found


def test_depth_first_computes_one_tower_after_the_other() -> None:
    rows = rows_of(interleaved())
    nodes = forward_nodes(rows.part)
    order = depth_first(rows.part, nodes)
    assert len(sides(rows, nodes)) == 8
    assert sides(rows, order) == ["left", "right"]


@pytest.mark.parametrize("program", [interleaved(), deep(), towers(3, shared=True)])
def test_depth_first_has_every_node_once_and_after_what_it_reads(program: Program) -> None:
    part = Rows(undivided(program), 4, SLOW).part
    nodes = forward_nodes(part)
    order = depth_first(part, nodes)
    assert sorted(order) == nodes
    place = {number: at for at, number in enumerate(order)}
    for number in nodes:
        for value in part.operands(number):
            assert place.get(value.node, -1) < place[number]


def test_branches_are_told_from_layers_in_a_row_and_pinned_ones_left_alone() -> None:
    assert Branches(rows_of(interleaved())).beside == pytest.approx(0.5, abs=0.15)
    assert Branches(rows_of(interleaved())).has_any
    assert Branches(Rows(undivided(deep()), 4, SLOW)).beside == pytest.approx(0.0, abs=0.01)
    assert not Branches(Rows(undivided(deep()), 4, SLOW)).has_any
    assert not Branches(rows_of(interleaved(), "left.0=stage 0")).has_any


def searched() -> PipelineSearch:
    return PipelineSearch(PlanRequest(program=interleaved(), machine=SLOW), None)


def of_kind(found: list[Found], *, by_branches: bool) -> Found:
    kind = [one for one in found if (one.rows is not None) == by_branches]
    return min(kind, key=lambda one: one.rank)


def built(search: PipelineSearch, found: Found) -> PipelinePlan:
    plan = search.built(found)
    assert plan is not None
    return plan


def test_stages_by_branches_are_simulated_faster_than_stages_in_the_order_of_execution() -> None:
    search = searched()
    found = search.worked_out(CONFIG, "1f1b")
    by_branches = built(search, of_kind(found, by_branches=True))
    in_order = built(search, of_kind(found, by_branches=False))
    assert by_branches.prediction.step_s < 0.9 * in_order.prediction.step_s
    assert by_branches.num_stages == in_order.num_stages == 2
    assert len(by_branches.cut.runs) > len(in_order.cut.runs) == 2
    # The result of one tower crosses, and not the streams of both.
    sent = [of.prediction.stages[0].send_forward_s for of in (by_branches, in_order)]
    assert 2 * sent[0] == pytest.approx(sent[1])


def test_the_search_takes_them_where_they_are_faster() -> None:
    search = searched()
    search.found = search.worked_out(CONFIG)
    best = search.best()
    assert best is not None
    assert best == built(search, of_kind(search.found, by_branches=True))
    assert (
        best.prediction.step_s
        < built(search, of_kind(search.found, by_branches=False)).prediction.step_s
    )
    assert all("by branches" not in other.name for other in search.alternatives())


def test_what_pieces_promised_too_much_gives_way_to_the_order_of_execution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search = searched()
    search.found = search.worked_out(CONFIG, "1f1b")
    by_branches = built(search, of_kind(search.found, by_branches=True))
    in_order = built(search, of_kind(search.found, by_branches=False))
    slower = replace(in_order.prediction, step_s=2 * in_order.prediction.step_s)
    plans = {True: replace(by_branches, prediction=slower), False: in_order}
    monkeypatch.setattr(search, "built", lambda found: plans[found.rows is not None])
    assert search.best() is in_order


def test_a_program_in_a_row_is_searched_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> Rows:
        raise AssertionError("no other order is looked at")

    request = PlanRequest(program=deep(), machine=preset("dgx-h100x1"))
    config = Config(groups=2, data=2, inner=2, micro_batches=4, rows=2)
    monkeypatch.setattr(searching.Branches, "for_stages", never)
    found = PipelineSearch(request, None).worked_out(config)
    assert found
    assert all(one.rows is None for one in found)


@pytest.mark.parametrize("limit", [inf, 20e9])
def test_the_largest_branch_is_a_stage_and_the_others_are_the_next(limit: float) -> None:
    """Depth first it comes between the others, and no cut of that order is even."""
    program = towers(1, batch=65_536, width=1024, hidden=(6144, 2048, 3072), slots=("m",))
    branches = Branches(Rows(undivided(program), 8, preset("dgx-h100x1")))
    slicer = Desk(branches.rows, CONFIG, limit, Level.FAST).slicer(Placing())
    found = branches.for_stages(CONFIG, slicer, limit, 10.0)
    assert found is not None
    assert sides(branches.rows, branches.order) == ["third", "left", "right"]
    place = found.pieces.cut.forward_stages(found.part)
    order = sorted(forward_nodes(found.part), key=place.__getitem__)
    assert sides(found, order) == ["left", "third", "right"]


def test_where_nothing_fits_pieces_stay_depth_first() -> None:
    branches = Branches(searched().rows_of(8))
    slicer = Desk(branches.rows, CONFIG, inf, Level.FAST).slicer(Placing())
    assert branches.for_stages(CONFIG, slicer, 1e3, 10.0) is branches.along
    many = replace(CONFIG, groups=64)
    assert branches.for_stages(many, slicer, inf, 10.0) is None


def test_pieces_that_have_to_be_computed_twice_are_dealt_out_too() -> None:
    branches = Branches(searched().rows_of(8))
    slicer = Desk(branches.rows, CONFIG, inf, Level.FAST).slicer(Placing())
    by_option = [
        piece_costs(branches.along, slicer.plan, option, branches.along.machine)
        for option in ("", "cheap", "full")
    ]
    first, *_ = by_option
    in_flight, tight = [2.0, 1.0], inf
    for share in range(100, 30, -2):
        limits = [share / 100 * sum(c.lasting_bytes + c.sums_bytes for c in first)] * 2
        kept, again = (
            partition(Runs(costs, 2, any_length=True), in_flight, limits, 8)
            for costs in ([first] * 3, by_option)
        )
        if kept is None and again is not None:
            tight = limits[0]
    assert tight < inf
    found = branches.for_stages(CONFIG, slicer, tight, 10.0)
    assert found is not None
    assert found.pieces.cut.num_stages == branches.along.pieces.cut.num_stages


def test_a_pipeline_by_branches_computes_the_same_on_all_ranks() -> None:
    program = towers(num_layers=3, batch=16, dtype=DType.F64, slots=("m",))
    search = PipelineSearch(PlanRequest(program=program, machine=preset("dgx-h100x1")), None)
    found = search.worked_out(Config(groups=2, data=2, inner=2, micro_batches=4, rows=2), "1f1b")
    best = built(search, of_kind(found, by_branches=True))
    assert len(best.cut.runs) > 2
    inputs = random_inputs(program)
    loss, updates = evaluate(program, inputs)
    piped, piped_updates = run_pipeline(program, best, inputs)
    assert piped == pytest.approx(loss, rel=1e-12)
    for name, array in updates.items():
        assert piped_updates[name] == pytest.approx(array, rel=1e-9, abs=1e-11)


def test_weft_plan_cuts_towers_by_branches() -> None:
    found = plan(interleaved(), SLOW, level="best")
    assert isinstance(found, PipelinePlan)
    assert len(found.cut.runs) > 2
    assert "runs beside other stages" in explain(found, interleaved(), SLOW)
