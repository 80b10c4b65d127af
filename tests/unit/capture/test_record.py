"""What cannot become a program is refused, with the operator, the module and the user's line."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from tests.unit.capture import models
from tests.unit.capture.harness import applied, assert_same_step
from weft.capture import SGD, Workload, capture
from weft.core.errors import CaptureError, InputError

X = torch.ones(4, 6, dtype=torch.float64)


def refusal(function, kind=CaptureError):
    with pytest.raises(kind) as caught:
        capture(applied(function, (4, 6), X, name="refused"))
    assert str(caught.value).startswith("refused: ")
    return caught.value


def line_of(function):
    return f"test_record.py:{inspect.getsourcelines(function)[1]}"


DATA_DEPENDENT = {
    "item": lambda w, x: w * x.sum().item(),
    "branch": lambda w, x: w if w.sum() > 0 else x,
    "nonzero": lambda w, x: w[x[:, 0].nonzero()[0]],
    "mask": lambda w, x: w[x[:, 0] > 0],
    "selection": lambda w, x: torch.masked_select(w, x > 0),
    "unique": lambda w, x: w * torch.unique(x).numel(),
    "repeats": lambda w, x: w.repeat_interleave(x[:, 0].long(), 0),
}


@pytest.mark.parametrize("name", DATA_DEPENDENT)
def test_data_dependent_steps_are_refused_with_the_users_line(name):
    error = refusal(DATA_DEPENDENT[name])
    assert "do not depend on values" in error.need
    assert line_of(DATA_DEPENDENT[name]) in error.got


def test_values_that_follow_from_constants_may_be_looked_at():
    def function(w, x):
        steps = torch.arange(4)
        return w * x if (torch.diff(steps) == 1).all() else w.missing

    assert_same_step(applied(function, (4, 6), X))


def test_an_operator_without_a_form_is_named():
    error = refusal(lambda w, x: torch.linalg.svdvals(w * x))
    assert "aten._linalg_svd.default" in error.got and "test_record.py:" in error.got


@pytest.mark.parametrize(
    "function",
    [lambda w, x: w + torch.randn_like(x), lambda w, x: w + torch.randint(0, 2, (4, 6))],
)
def test_random_numbers_that_no_seed_decides_are_refused(function):
    error = refusal(function)
    assert "seed" in error.need and line_of(function) in error.got


def test_the_module_of_a_refused_call_is_named():
    class Inner(nn.Module):
        def forward(self, x):
            return x * x.max().item()

    class Outer(models.MLP):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([nn.Identity(), Inner()])

        def forward(self, x):
            return super().forward(self.blocks[1](x))

    workload = Workload(
        name="outer",
        model=lambda: Outer().double(),
        loss=models.classify,
        batch=models.features,
        optimizer=SGD(),
    )
    with pytest.raises(CaptureError, match=r"in blocks\.1 at test_record\.py:"):
        capture(workload)


def test_an_error_of_the_model_is_told_with_its_line():
    def function(w, x):
        return w @ x

    error = refusal(function)
    assert "RuntimeError" in error.got and "test_record.py:" in error.got


def test_large_constants_made_in_a_forward_are_refused():
    error = refusal(lambda w, x: w * torch.tensor([[1.0, 2.0, 3.0] * 10] * 4)[:, :6])
    assert "f32[4,30]" in error.got and "buffer" in error.hint


def test_a_tensor_hidden_in_a_list_is_refused_with_a_hint():
    class Hidden(models.MLP):
        def __init__(self):
            super().__init__()
            self.scales = [torch.arange(6.0)]

        def forward(self, x):
            return super().forward(x * self.scales[0])

    workload = Workload(
        name="hidden",
        model=lambda: Hidden().double(),
        loss=models.classify,
        batch=models.features,
        optimizer=SGD(),
    )
    with pytest.raises(CaptureError, match="register it as a buffer"):
        capture(workload)


def test_a_batch_of_anything_but_tensors_is_refused_by_key():
    workload = applied(lambda w, x: w * x, (4, 6), X)
    broken = Workload(
        name="broken",
        model=workload.model,
        loss=workload.loss,
        batch=lambda step: {"x": X, "step": 3},
        optimizer=SGD(),
    )
    with pytest.raises(InputError, match="step = int 3"):
        capture(broken)


def test_a_missing_gradient_is_refused_by_the_parameters_name():
    class Spare(models.MLP):
        def __init__(self):
            super().__init__()
            self.spare = nn.Linear(2, 2)

    workload = Workload(
        name="spare",
        model=lambda: Spare().double(),
        loss=models.classify,
        batch=models.features,
        optimizer=SGD(),
    )
    with pytest.raises(CaptureError, match=r"none for spare\.weight, spare\.bias"):
        capture(workload)
