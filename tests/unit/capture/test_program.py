"""A captured program computes what the step computes, and says where everything came from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.capture import models
from tests.unit.capture.harness import assert_same_step, evaluated, stepped
from weft.capture import SGD, Workload, capture, initial_state
from weft.core.errors import CaptureError, InputError
from weft.program.graph import Phase, Role
from weft.program.types import DType, TensorType
from weft.program.verify import verify

WORKLOADS = {
    "mlp": models.mlp(),
    "gpt, tied, with dropout": models.decoder(dropout=0.2),
    "llama": models.llama(),
    "convolutions and batch norm": models.conv_net(),
    "mixture of experts": models.experts(),
}


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_program_computes_what_the_step_computes(name):
    assert_same_step(WORKLOADS[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_program_is_legal_and_the_same_every_time(name):
    program = capture(WORKLOADS[name])
    verify(program)
    assert capture(WORKLOADS[name]) == program


def test_a_program_computes_a_later_step_from_its_state():
    workload = models.decoder(dropout=0.1)
    state = initial_state(workload)
    for step in range(3):
        loss, state = evaluated(workload, state=state, step=step)
        state = {name: torch.from_numpy(np.asarray(value)) for name, value in state.items()}
    wanted = initial_state(workload)
    for step in range(3):
        wanted_loss, new = stepped(workload, state=wanted, step=step)
        wanted = {name: torch.from_numpy(value) for name, value in new.items()}
    assert loss == pytest.approx(wanted_loss, rel=1e-10)
    assert int(state["optimizer.step"]) == 3


def test_inputs_come_by_role_and_in_the_modules_order():
    names = [i.name for i in capture(models.mlp()).inputs]
    parameters = ["up.weight", "up.bias", "down.weight", "down.bias"]
    state = ["optimizer.step", *(f"optimizer.momentum.{name}" for name in parameters)]
    assert names == [*parameters, *state, "batch.x", "batch.y", "seed"]


def test_inputs_have_roles_and_state_names_its_parameter():
    inputs = {i.name: i for i in capture(models.conv_net()).inputs}
    assert inputs["conv.weight"].role is Role.PARAMETER
    assert inputs["norm.running_mean"].role is Role.BUFFER
    assert inputs["batch.x"].role is Role.BATCH and inputs["seed"].role is Role.SEED
    moment = capture(models.mlp()).input_by_name["optimizer.momentum.up.bias"]
    assert (moment.role, moment.parameter) == (Role.STATE, "up.bias")


def test_tied_weights_are_one_input():
    program = capture(models.decoder(tied=True))
    assert "tokens.weight" in program.input_by_name
    assert "head.weight" not in program.input_by_name
    untied = capture(models.decoder(tied=False))
    assert untied.num_parameters - program.num_parameters == 8 * 11


def test_batch_norm_updates_its_running_statistics():
    program = capture(models.conv_net())
    changed = {program.input_by_node[node].name for node, _ in program.updates}
    assert {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"} <= changed


def test_buffers_that_stay_are_not_updated():
    program = capture(models.llama())
    assert "angles" not in {program.input_by_node[node].name for node, _ in program.updates}


def test_mixed_precision_computes_in_bf16_and_keeps_masters_in_f32():
    workload = models.decoder(dtype=torch.float32, compute_dtype=torch.bfloat16)
    program = capture(workload)
    products = [n.outputs[0].dtype for n in program.nodes if n.op == "einsum"]
    assert set(products) == {DType.BF16}
    for given in program.inputs:
        if given.role in (Role.PARAMETER, Role.STATE) and given.name != "optimizer.step":
            assert program.nodes[given.node].outputs[0].dtype is DType.F32
    loss, state = evaluated(workload, program)
    wanted_loss, wanted = stepped(workload)
    assert loss == pytest.approx(wanted_loss, rel=2e-2)
    for name, value in wanted.items():
        np.testing.assert_allclose(state[name], value, atol=2.5e-2, err_msg=name)


def test_every_node_knows_its_module_in_forward_and_backward():
    program = capture(models.decoder())
    for phase in (Phase.FORWARD, Phase.BACKWARD):
        scopes = {n.scope for n in program.nodes if n.op == "einsum" and n.phase is phase}
        assert {"layers.0.query", "layers.1.up", "head"} <= scopes
    backward = {n.scope for n in program.nodes if n.op == "attention_backward"}
    assert backward == {"layers.0", "layers.1"}


def test_updates_carry_the_path_of_their_parameter():
    scopes = {n.scope for n in capture(models.decoder()).nodes if n.phase is Phase.UPDATE}
    assert "optimizer" in scopes and "optimizer.layers.1.up.weight" in scopes


def test_casts_of_parameters_belong_to_the_parameters_module():
    program = capture(models.decoder(dtype=torch.float32, compute_dtype=torch.bfloat16))
    masters = {i.node: i.name for i in program.inputs if i.role is Role.PARAMETER}
    for node in program.nodes:
        if node.op == "cast" and node.phase is Phase.FORWARD and node.args[0].node in masters:
            assert node.scope == masters[node.args[0].node].rpartition(".")[0]


def test_nodes_know_the_users_line_in_forward_and_backward():
    program = capture(models.decoder())
    attention = {n.op: n.source for n in program.nodes if n.op.startswith("attention")}
    assert attention["attention"] == attention["attention_backward"]
    assert attention["attention"].startswith("models.py:")
    assert not any(n.source for n in program.nodes if n.phase is Phase.UPDATE)


def test_frozen_parameters_are_buffers_without_state():
    def frozen():
        model = models.MLP().double()
        model.up.requires_grad_(False)
        return model

    workload = Workload(
        name="frozen",
        model=frozen,
        loss=models.classify,
        batch=models.features,
        optimizer=SGD(lr=0.1, momentum=0.9),
    )
    program = capture(workload)
    assert program.input_by_name["up.weight"].role is Role.BUFFER
    assert "optimizer.momentum.up.weight" not in program.input_by_name
    assert_same_step(workload)


def test_one_parameter_in_two_places_gets_the_sum_of_gradients():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(6, 6).double()
            self.second = nn.Linear(6, 6).double()
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x))

    assert_same_step(
        Workload(
            name="twice",
            model=Twice,
            loss=lambda model, batch: model(batch["x"]).square().mean(),
            batch=models.features,
            optimizer=SGD(lr=0.1),
        )
    )


def test_the_loss_is_a_scalar_of_the_forward():
    program = capture(models.mlp())
    assert program.type_of(program.loss) == TensorType(DType.F64, ())
    assert program.nodes[program.loss.node].phase is Phase.FORWARD


def raises(*_):
    raise KeyError("boom")


def nested():
    model = nn.Linear(6, 5)
    for _ in range(2000):
        model = nn.Sequential(model)
    return model


class Endless(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 5)

    def forward(self, x):
        return self(x + 1)


BROKEN = {
    "a model factory that raises": ({"model": raises}, "'boom' at test_program.py:"),
    "a model factory without a module": ({"model": lambda: None}, "NoneType"),
    "modules that are nested too deeply": ({"model": nested}, "RecursionError"),
    "a forward that calls itself": ({"model": Endless}, "RecursionError"),
    "a loss that raises": ({"loss": raises}, "'boom' at test_program.py:"),
    "a batch function that raises": ({"batch": raises}, "'boom' at test_program.py:"),
    "a learning rate that raises": ({"optimizer": SGD(lr=raises)}, "'boom' at test_program.py:"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_breaks_in_the_users_functions_is_told_with_their_line_and_kept_as_the_cause(what):
    fields, got = BROKEN[what]
    with pytest.raises((InputError, CaptureError)) as caught:
        capture(replace(models.mlp(), **fields))
    error = caught.value
    assert got in error.got and error.need and error.hint
    assert error.where == "mlp"
    assert error.__cause__ is not None or "without" in what


@pytest.mark.parametrize("model", [raises, lambda: None, nested])
def test_a_broken_model_factory_is_told_by_the_first_state_as_well(model):
    with pytest.raises(InputError, match="model factory") as caught:
        initial_state(replace(models.mlp(), model=model))
    assert caught.value.where == "mlp"
