"""Parts of the batch for unlike devices: all are given out, and the last is through early."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.homed import MIXED, devices
from tests.programs import mlp
from weft.machine.presets import preset
from weft.parallel import proportions
from weft.parallel.experts import expert_plan
from weft.parallel.proportions import (
    Pace,
    Proportions,
    paces,
    shared_out,
    units_of,
)
from weft.parallel.request import PlanRequest
from weft.parallel.schemes import Schemes
from weft.parallel.spmd import lower_expanded

PACES = st.builds(Pace, st.floats(0.0, 3.0), st.floats(0.1, 5.0))


@given(st.lists(PACES, min_size=2, max_size=3), st.integers(3, 9))
def test_no_other_way_is_earlier_through(paces: list[Pace], units: int) -> None:
    given_out = shared_out(paces, units)
    assert sum(given_out) == units
    assert min(given_out) >= 1

    def last_s(parts: tuple[int, ...]) -> float:
        return max(pace.seconds(n) for pace, n in zip(paces, parts, strict=True))

    every = (p for p in product(range(1, units + 1), repeat=len(paces)) if sum(p) == units)
    assert last_s(given_out) == pytest.approx(min(map(last_s, every)))


@given(st.integers(1, 5000))
def test_units_divide_the_rows(rows: int) -> None:
    assert rows % units_of(rows) == 0
    assert units_of(rows) <= 64


def test_faster_devices_have_more() -> None:
    program = mlp(num_layers=4, batch=512, width=1024, slots=("m",))
    machine = devices(4)
    (plain, *_) = Proportions(program, machine, Schemes(program)).degrees()
    assert plain.shares[0] == plain.shares[1] > plain.shares[2] == plain.shares[3]
    planned = expert_plan(program, machine, dp=4, shares=plain.shares)
    even = expert_plan(program, machine, dp=4)
    assert planned.prediction.step_s <= even.prediction.step_s


def test_alike_devices_have_equal_parts() -> None:
    program = mlp(num_layers=2, batch=64, width=64)
    alike = Proportions(program, preset("dgx-h100x1"), Schemes(program))
    assert alike.degrees() == alike.layouts_of_some() == ()


def test_some_devices_are_left_out_group_by_group() -> None:
    program = mlp(num_layers=2, batch=64, width=64)
    found = Proportions(program, MIXED, Schemes(program)).layouts_of_some()
    assert len(found) == len(set(found)) >= 2
    for layout in found:
        groups = (layout[:4], layout[4:12], layout[12:])
        assert all(all(own) or not any(own) for own in groups)
        assert 0 < sum(map(bool, layout)) < 16


def test_a_request_knows_them_once() -> None:
    request = PlanRequest(program=mlp(num_layers=2, batch=64, width=64), machine=MIXED)
    assert request.in_proportion is request.in_proportion
    assert {degrees.dp * degrees.tp for degrees in request.in_proportion} <= {16}


def test_what_devices_take_is_priced_once_for_all(monkeypatch) -> None:
    request = PlanRequest(program=mlp(num_layers=2, batch=64, width=64), machine=MIXED)
    lowered: list[int] = []

    def counted(program, plan):
        lowered.append(plan.mesh.num_axes)
        return lower_expanded(program, plan)

    monkeypatch.setattr(proportions, "lower_expanded", counted)
    request.in_proportion  # noqa: B018 - the first to price
    first = list(lowered)
    assert first.count(1) == 1
    assert request.proportions.layouts_of_some()
    assert lowered == first


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_few_rows_are_not_shared_out_where_tensor_parallel_leaves_none(rows: int) -> None:
    program = mlp(num_layers=1, batch=rows, width=64)
    machine = places_of_two()
    for degrees in Proportions(program, machine, Schemes(program)).degrees():
        assert rows % degrees.data_units == 0


def test_what_wide_layers_leave_to_do_is_priced_for_itself(monkeypatch) -> None:
    program = mlp(num_layers=1, batch=1 << 14, width=64)  # so many rows that no layer is cut
    priced: list[tuple[int, ...]] = []

    def noted(program, machine, axes, places):
        priced.append(tuple(axis.size for axis in axes))
        return paces(program, machine, axes, places)

    monkeypatch.setattr(proportions, "paces", noted)
    Proportions(program, places_of_two(), Schemes(program)).degrees()
    assert priced.count((64, 2)) == 2


def places_of_two():
    """Two devices of each of two kinds."""
    first, second, _ = MIXED.groups
    groups = tuple(replace(own, devices_per_node=2, num_nodes=1) for own in (first, second))
    return replace(MIXED, name="two of each", groups=groups)
