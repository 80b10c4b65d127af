"""The pure optimizers follow torch.optim number for number."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from weft.capture import SGD, Adafactor, AdamW
from weft.capture.optimizer import from_torch, state_name
from weft.core.errors import InputError

SHAPES = {"matrix": (4, 3), "vector": (5,), "scalar": (), "kernel": (2, 3, 3, 2)}

PAIRS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.03, betas=(0.8, 0.95), weight_decay=0.1),
    "adamw without decay": lambda p: torch.optim.AdamW(p, lr=0.03, weight_decay=0.0),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, eps=1e-5),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "sgd with momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.2),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.05, weight_decay=0.1, d=1.2),
    "adafactor with floor": lambda p: torch.optim.Adafactor(p, lr=0.5, eps=(1e-2, 0.3)),
}


def tensors(seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, dtype=torch.float64, generator=generator)
        for name, shape in SHAPES.items()
    }


def run_torch(factory, num_steps, schedule=None):
    parameters = {name: nn.Parameter(t) for name, t in tensors(0).items()}
    optimizer = factory(list(parameters.values()))
    scheduler = schedule and torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    for step in range(num_steps):
        gradients = tensors(step + 1)
        for name, parameter in parameters.items():
            parameter.grad = gradients[name]
        optimizer.step()
        if scheduler:
            scheduler.step()
    return {name: p.detach() for name, p in parameters.items()}


def run_pure(optimizer, num_steps):
    parameters = tensors(0)
    state = optimizer.init(parameters)
    for step in range(num_steps):
        parameters, state = optimizer.update(tensors(step + 1), state, parameters)
    return parameters, state


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("num_steps", [1, 6])
def test_a_pure_optimizer_follows_torch_optim(name, num_steps):
    wanted = run_torch(PAIRS[name], num_steps)
    found, _ = run_pure(from_torch(PAIRS[name]), num_steps)
    for parameter, value in wanted.items():
        torch.testing.assert_close(found[parameter], value, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", [AdamW, SGD, Adafactor])
def test_a_learning_rate_may_be_a_function_of_the_steps_done(kind):
    theirs = {AdamW: torch.optim.AdamW, SGD: torch.optim.SGD, Adafactor: torch.optim.Adafactor}
    wanted = run_torch(lambda p: theirs[kind](p, lr=0.2), 5, lambda done: 1.0 / (1.0 + done))
    found, _ = run_pure(kind(lr=lambda done: 0.2 / (1.0 + done)), 5)
    for parameter, value in wanted.items():
        torch.testing.assert_close(found[parameter], value, rtol=1e-12, atol=1e-13)


def test_the_state_counts_steps_and_names_its_parameters():
    _, state = run_pure(AdamW(), 3)
    assert state["optimizer.step"].item() == 3
    slots = {state_name(slot, name) for slot in ("exp_avg", "exp_avg_sq") for name in SHAPES}
    assert state.keys() == slots | {"optimizer.step"}


def test_adafactor_keeps_rows_and_columns_of_matrices_only():
    state = Adafactor().init(tensors(0))
    assert state["optimizer.row_var.kernel"].shape == (2, 3, 3, 1)
    assert state["optimizer.col_var.kernel"].shape == (2, 3, 1, 2)
    assert state["optimizer.variance.vector"].shape == (5,)
    assert "optimizer.variance.matrix" not in state


@pytest.mark.parametrize("optimizer", [AdamW(), SGD(momentum=0.9, weight_decay=0.1), Adafactor()])
def test_an_update_changes_nothing_that_it_is_given(optimizer):
    parameters, gradients = tensors(0), tensors(1)
    state = optimizer.init(parameters)
    before = {name: value.clone() for name, value in (state | parameters).items()}
    optimizer.update(gradients, state, parameters)
    assert all(torch.equal(before[name], value) for name, value in (state | parameters).items())


REFUSED = {
    "RMSprop": lambda p: torch.optim.RMSprop(p),
    "AdamW with amsgrad": lambda p: torch.optim.AdamW(p, amsgrad=True),
    "SGD with dampening": lambda p: torch.optim.SGD(p, momentum=0.9, dampening=0.1),
    "SGD with maximize": lambda p: torch.optim.SGD(p, maximize=True),
    "Adam with weight_decay": lambda p: torch.optim.Adam(p, weight_decay=0.1),
    "2 parameter groups": lambda p: torch.optim.SGD(
        [{"params": [q], "lr": 0.1 * q.dim()} for q in p], lr=0.1
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_has_no_pure_form_is_refused_by_name(what):
    with pytest.raises(InputError) as caught:
        from_torch(REFUSED[what])
    assert what in caught.value.got and caught.value.hint


def test_nesterov_needs_momentum():
    with pytest.raises(InputError, match="momentum above 0"):
        SGD(nesterov=True)


NAN, INF = float("nan"), float("inf")
OUT_OF_RANGE = [
    *(
        (kind, "lr", lr)
        for kind in (AdamW, SGD, Adafactor)
        for lr in (NAN, INF, -0.1, "1e-3", None)
    ),
    *((kind, "weight_decay", -0.1) for kind in (AdamW, SGD, Adafactor)),
    (AdamW, "betas", (1.0, 0.9)),
    (AdamW, "betas", (0.9, -0.1)),
    (AdamW, "betas", (0.9, NAN)),
    (AdamW, "betas", (0.9,)),
    (AdamW, "betas", 0.9),
    (AdamW, "eps", -1e-8),
    (SGD, "momentum", -0.1),
    (SGD, "momentum", 1.0),
    (SGD, "momentum", True),
    (Adafactor, "beta2_decay", 0.1),
    (Adafactor, "eps", (-1.0, 1e-3)),
    (Adafactor, "eps", (None, -1e-3)),
    (Adafactor, "eps", 1e-3),
    (Adafactor, "d", 0.5),
]


@pytest.mark.parametrize(("kind", "field", "value"), OUT_OF_RANGE)
def test_a_setting_out_of_range_is_refused_by_name(kind, field, value):
    with pytest.raises(InputError, match=rf"need  {field}\b") as caught:
        kind(**{field: value})
    assert field in caught.value.got
