"""A step on one rank: its losses, its state, its refusals."""

import pytest
import torch

from tests.unit.runtime import workload
from weft.capture import initial_state, make_step
from weft.core.errors import InputError
from weft.program.graph import Role
from weft.runtime.step import step_seed


def test_a_step_alone_is_the_plain_training_step():
    mine, tiny = workload.step(), workload.tiny()
    plain, state = make_step(tiny), initial_state(tiny)
    for number in range(4):
        batch = tiny.batch(number)
        loss, state = plain(state, batch, torch.tensor(step_seed(tiny.seed, number)))
        torch.testing.assert_close(mine(batch), loss, rtol=1e-6, atol=0)
    found = mine.full_state()
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(found[name], tensor, msg=name)


def test_seeds_differ_between_steps_and_between_runs():
    seeds = {step_seed(seed, step) for seed in range(20) for step in range(50)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_dropout_draws_anew_in_each_step():
    first, tiny = workload.step(), workload.tiny()
    batch = tiny.batch(0)
    again = workload.step()
    again.number = 1
    assert float(first(batch)) != float(again(batch))


def test_parameters_are_those_of_the_model_and_state_is_all_that_lasts():
    mine, program = workload.step(), workload.program()
    assert list(mine.parameters()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    lasting = {i.name for i in program.inputs if i.role not in (Role.BATCH, Role.SEED)}
    assert set(mine.state()) == lasting


def test_the_step_gives_its_old_state_away():
    mine = workload.step()
    old = mine.parameters()["0.weight"]
    before = old.clone()
    mine(workload.tiny().batch(0))
    assert torch.equal(old, before), "eager steps make new tensors"
    assert not torch.equal(mine.parameters()["0.weight"], before)


def test_a_missing_entry_is_named_with_those_that_are_there():
    mine = workload.step()
    with pytest.raises(InputError, match=r"'y' of type f32\[8,2\]") as caught:
        mine({"x": torch.zeros(8, 4)})
    assert caught.value.got == "entries 'x'"
    assert mine.number == 0


def test_another_element_type_is_refused():
    batch = workload.tiny().batch(0)
    with pytest.raises(InputError, match=r"got   f64\[8,4\]"):
        workload.step()({**batch, "x": batch["x"].double()})


@pytest.mark.parametrize("entry", [None, [1.0], torch.eye(8, 4).to_sparse()])
def test_an_entry_that_is_no_dense_tensor_is_named_with_its_step(entry):
    mine = workload.step()
    mine(workload.tiny().batch(0))
    with pytest.raises(InputError, match=r"x = .* in the batch of step 1"):
        mine({**workload.tiny().batch(1), "x": entry})
