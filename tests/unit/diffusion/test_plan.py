"""Denoise plans as data."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import FileError, InputError
from weft.diffusion.plan import (
    DenoisePlan,
    Mode,
    Model,
    Predictor,
    StepPlan,
    load_plan,
    save_plan,
)


@st.composite
def steps(draw):
    mode = draw(st.sampled_from(Mode))
    if mode is Mode.MIXED:
        predictor = draw(st.sampled_from(Predictor).filter(lambda p: p is not Predictor.FITTED))
        return StepPlan(mode=mode, predictor=predictor, model=Model.SMALL)
    first, length = draw(st.integers(0, 40)), draw(st.integers(1, 40))
    return StepPlan(
        mode=mode,
        predictor=draw(st.sampled_from(Predictor)),
        model=draw(st.sampled_from(Model)),
        blocks=(first, first + length) if mode is Mode.BLOCK else None,
    )


@given(st.lists(steps(), min_size=1, max_size=60), st.none() | st.floats(1.0, 9.0))
def test_a_plan_survives_json(own, speedup):
    plan = DenoisePlan(steps=tuple(own), policy="some", speedup=speedup)
    assert DenoisePlan.from_json(plan.to_json()) == plan


def test_a_plan_survives_a_file(tmp_path):
    plan = DenoisePlan(steps=(StepPlan(), StepPlan(mode=Mode.STEP)), policy="by hand")
    save_plan(plan, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == plan


@pytest.mark.parametrize(
    "spoil",
    [
        lambda plain: plain | {"version": 2},
        lambda plain: plain | {"weft": "fusion plan"},
        lambda plain: plain | {"steps": []},
        lambda plain: plain | {"steps": [{}]},
        lambda plain: plain | {"steps": [plain["steps"][0] | {"mode": "none"}]},
        lambda plain: plain | {"steps": [plain["steps"][0] | {"blocks": [1, 2]}]},
        lambda plain: plain | {"steps": [plain["steps"][0] | {"mode": "block", "blocks": 3}]},
        lambda plain: plain | {"speedup": "fast"},
        lambda plain: [plain],
    ],
)
def test_what_is_no_plan_is_refused(spoil, tmp_path):
    plain = json.loads(DenoisePlan(steps=(StepPlan(),)).to_json())
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(spoil(plain)))
    with pytest.raises(FileError, match="a denoise plan of version 1") as caught:
        load_plan(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileError, match=r"none\.json"):
        load_plan(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("mode", "blocks"),
    [(Mode.BLOCK, None), (Mode.FULL, (1, 2)), (Mode.BLOCK, (2, 2)), (Mode.BLOCK, (-1, 2))],
)
def test_blocks_belong_to_block_steps(mode, blocks):
    with pytest.raises(InputError, match="a range of blocks"):
        StepPlan(mode=mode, blocks=blocks)


def test_a_step_says_what_it_is():
    step = StepPlan(mode=Mode.BLOCK, blocks=(1, 5), predictor=Predictor.LINEAR, model=Model.SMALL)
    assert str(step) == "block 1-4 linear small"
    assert str(StepPlan()) == "full"


def test_orders_rise_with_predictors():
    assert [predictor.order for predictor in Predictor] == [0, 1, 2, 2]
