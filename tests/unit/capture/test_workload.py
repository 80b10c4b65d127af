"""Workloads check what they are given and make the same model every time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.unit.capture import models
from weft.capture import AdamW
from weft.capture.workload import build_model
from weft.core.errors import InputError


def test_a_torch_optimizer_becomes_a_pure_one():
    workload = models.mlp(lambda p: torch.optim.AdamW(p, lr=0.5, betas=(0.1, 0.2)))
    assert workload.pure_optimizer == AdamW(lr=0.5, betas=(0.1, 0.2))


def test_an_unknown_optimizer_is_refused_when_the_workload_is_made():
    with pytest.raises(InputError, match="RMSprop"):
        models.mlp(lambda p: torch.optim.RMSprop(p))


def test_a_workload_needs_a_name():
    with pytest.raises(InputError, match="a name"):
        replace(models.mlp(), name="")


WRONG = {
    "name": ("", 3),
    "seed": (1.5, "7", None, True, 2**64),
    "model": (None, torch.nn.Linear(2, 1)),
    "loss": ("mse",),
    "batch": ({"x": torch.ones(2)},),
}


@pytest.mark.parametrize(("field", "value"), [(f, v) for f in WRONG for v in WRONG[f]])
def test_a_field_of_another_kind_is_refused_by_name(field, value):
    with pytest.raises(InputError, match=field) as caught:
        replace(models.mlp(), **{field: value})
    assert caught.value.hint


def fails(parameters):
    raise ValueError("no such thing")


@pytest.mark.parametrize(
    "optimizer",
    [None, "adam", AdamW, torch.optim.SGD([torch.ones(1)]), lambda p: None, lambda: None, fails],
)
def test_what_is_no_optimizer_is_refused_with_one_that_is(optimizer):
    with pytest.raises(InputError, match=r"weft\.AdamW\(lr=\.\.\.\)"):
        replace(models.mlp(), optimizer=optimizer)


def test_computing_in_integers_is_refused():
    with pytest.raises(InputError, match=r"torch\.int64"):
        replace(models.mlp(), compute_dtype=torch.int64)


def test_the_seed_decides_the_model():
    first, again, other = (
        build_model(replace(models.mlp(), seed=seed)).up.weight for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_making_a_model_leaves_the_callers_random_state_alone():
    before = torch.get_rng_state()
    build_model(models.mlp())
    assert torch.equal(before, torch.get_rng_state())
