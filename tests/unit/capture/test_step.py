"""The pure step does what a plain torch training loop does, and changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.unit.capture import models
from weft.capture import SGD, initial_state, make_step
from weft.capture.workload import build_model
from weft.core.errors import CaptureError

SEED = torch.tensor(0)

FACTORIES = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=1e-2),
}

WORKLOADS = {
    "mlp": models.mlp,
    "tied gpt": models.decoder,
    "llama": models.llama,
    "batch norm": models.conv_net,
    "experts": models.experts,
}


def plain_loop(workload, factory, num_steps):
    model = build_model(workload)
    optimizer = factory(model.parameters())
    losses = []
    for step in range(num_steps):
        optimizer.zero_grad()
        loss = workload.loss(model, workload.batch(step))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, model.state_dict()


def pure_loop(workload, num_steps):
    step, state = make_step(workload), initial_state(workload)
    losses = []
    for number in range(num_steps):
        loss, state = step(state, workload.batch(number), SEED)
        losses.append(float(loss))
    return losses, state


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_step_follows_a_plain_training_loop(name):
    factory = FACTORIES["sgd"]
    workload = replace(WORKLOADS[name](), optimizer=factory)
    losses, tensors = plain_loop(workload, factory, 5)
    found, state = pure_loop(workload, 5)
    torch.testing.assert_close(found, losses, rtol=1e-11, atol=1e-12)
    for key, value in tensors.items():
        if key in state:
            torch.testing.assert_close(state[key], value, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", FACTORIES)
def test_the_step_follows_a_loop_with_any_optimizer(name):
    workload = models.mlp(FACTORIES[name])
    losses, tensors = plain_loop(workload, FACTORIES[name], 6)
    found, state = pure_loop(workload, 6)
    torch.testing.assert_close(found, losses, rtol=1e-11, atol=1e-12)
    for key, value in tensors.items():
        torch.testing.assert_close(state[key], value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_step_changes_nothing_that_it_is_given(name):
    workload = WORKLOADS[name]()
    state, batch = initial_state(workload), workload.batch(0)
    before = {key: value.clone() for key, value in (state | dict(batch)).items()}
    make_step(workload)(state, batch, SEED)
    assert all(torch.equal(before[k], v) for k, v in (state | dict(batch)).items())


def test_a_model_may_write_into_its_batch_without_changing_it():
    def loss(model, batch):
        return models.classify(model, {"x": batch["x"].mul_(2.0), "y": batch["y"]})

    workload = replace(models.mlp(), loss=loss)
    batch = workload.batch(0)
    first = make_step(workload)(initial_state(workload), batch, SEED)[0]
    assert torch.equal(batch["x"], workload.batch(0)["x"])
    assert torch.equal(first, make_step(workload)(initial_state(workload), batch, SEED)[0])


def test_dropout_follows_from_the_seed_alone():
    workload = models.decoder(dropout=0.5)
    step, state, batch = make_step(workload), initial_state(workload), workload.batch(0)
    before = torch.get_rng_state()
    first, again, other = (step(state, batch, torch.tensor(s))[0] for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_mixed_precision_keeps_state_in_the_parameters_type():
    workload = models.decoder(dtype=torch.float32, compute_dtype=torch.bfloat16)
    _, state = make_step(workload)(initial_state(workload), workload.batch(0), SEED)
    assert {v.dtype for k, v in state.items() if k != "optimizer.step"} == {torch.float32}


def test_mixed_precision_computes_in_the_compute_type():
    seen = []

    def loss(model, batch):
        seen.append((model.up.weight.dtype, batch["x"].dtype, batch["y"].dtype))
        return models.classify(model, batch)

    workload = replace(models.mlp(), loss=loss, compute_dtype=torch.bfloat16)
    make_step(workload)(initial_state(workload), workload.batch(0), SEED)
    assert seen == [(torch.bfloat16, torch.bfloat16, torch.int64)]


def refused(**changes):
    workload = replace(models.mlp(), **changes)
    with pytest.raises(CaptureError) as caught:
        make_step(workload)(initial_state(workload), workload.batch(0), SEED)
    return caught.value


def test_a_loss_with_dims_is_refused_with_its_shape():
    error = refused(loss=lambda model, batch: model(batch["x"]))
    assert "(5, 5)" in error.got


def test_a_parameter_without_gradient_is_refused_by_name():
    class Spare(models.MLP):
        def __init__(self):
            super().__init__()
            self.spare = nn.Linear(3, 3)

    error = refused(model=lambda: Spare().double())
    assert "spare.weight, spare.bias" in error.got


def test_a_loss_without_a_graph_is_refused():
    error = refused(loss=lambda model, batch: models.classify(model, batch).detach())
    assert "up.weight" in error.got


def test_a_model_on_the_meta_device_is_refused_by_name():
    error = refused(model=lambda: nn.Linear(6, 5, device="meta"))
    assert "weight on the meta device" in error.got


def test_a_parameter_changed_by_the_forward_is_refused_by_name():
    def loss(model, batch):
        with torch.no_grad():
            model.down.bias.add_(1.0)
        return models.classify(model, batch)

    assert "down.bias" in refused(loss=loss).got


def test_a_momentum_buffer_starts_at_zero():
    state = initial_state(models.mlp(SGD(momentum=0.5)))
    assert not state["optimizer.momentum.up.weight"].any()
