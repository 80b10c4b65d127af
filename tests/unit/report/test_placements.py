from dataclasses import replace

import pytest

from tests.unit.report import toy_plan
from weft.report.placements import activation_rows, axis_names, common_name, parameter_rows


def rows_of(plan):
    program, _ = toy_plan.draft()
    return {row.name: row for row in parameter_rows(program, plan)}


def test_layers_that_are_treated_alike_share_a_row():
    rows = rows_of(toy_plan.plan())
    assert set(rows) == {"layers.0-3.up", "layers.0-3.down"}
    assert rows["layers.0-3.up"].count == toy_plan.NUM_LAYERS


def test_a_layer_that_is_treated_differently_has_its_own_row():
    rows = rows_of(toy_plan.plan(odd_layer=2))
    assert rows["layers.0-1,3.up"].stored == (1, 0)
    assert rows["layers.2.up"].stored == (-1, -1)


def test_how_a_weight_is_read_is_looked_up_behind_its_cast():
    rows = rows_of(toy_plan.plan())
    assert rows["layers.0-3.up"].read == ((-1, 0),)
    assert rows["layers.0-3.down"].read == ((-1, 1),)


def test_bytes_are_those_of_one_devices_part():
    row = rows_of(toy_plan.plan())["layers.0-3.up"]
    assert row.local_bytes == toy_plan.F * toy_plan.D * 4 // 4


def test_a_summand_is_as_large_as_the_dims_that_are_not_cut():
    program, _ = toy_plan.draft()
    rows = {row.name: row for row in activation_rows(program, toy_plan.plan())}
    down = rows["layers.0-3.down (einsum)"]
    assert down.stored == (0, -2)
    assert down.local_bytes == toy_plan.B // 2 * toy_plan.D * 4


def test_axes_are_named_for_what_they_cut():
    program, _ = toy_plan.draft()
    assert axis_names(program, toy_plan.plan()) == ("data", "tensor")


def test_axes_that_do_the_same_are_numbered():
    program, strategies = toy_plan.draft()
    everywhere = tuple(
        replace(s, outputs=((-1, -1),), operands=tuple((-1, -1) for _ in s.operands))
        for s in strategies
    )
    plan = replace(toy_plan.plan(), strategies=everywhere)
    assert axis_names(program, plan) == ("copies1", "copies2")


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["w"], "w"),
        (["l.7.w"], "l.7.w"),
        (["l.0.w", "l.1.w", "l.2.w"], "l.0-2.w"),
        (["l.9.w", "l.10.w", "l.12.w"], "l.9-10,12.w"),
        (["s.0.l.0", "s.0.l.1", "s.1.l.0", "s.1.l.1"], "s.0-1.l.0-1"),
    ],
)
def test_numbers_become_ranges_in_numeric_order(names, wanted):
    assert common_name(names) == wanted
