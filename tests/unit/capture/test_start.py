"""The state that is made one tensor at a time has the bits of the one that is made at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.alive import Alive
from tests.unit.capture import models
from weft.capture import SGD, Adafactor, AdamW, Optimizer, Workload, initial_state
from weft.capture.start import visit_initial_state


def workload_of(model, optimizer=None):
    return Workload(
        name="made",
        model=model,
        loss=lambda model, batch: model(batch["x"]).mean(),
        batch=lambda step: {"x": torch.ones(2, 4)},
        optimizer=optimizer or AdamW(),
    )


def visited(workload, names=None):
    """Copies of what is handed over, and why it was built whole."""
    found = {}
    why = visit_initial_state(
        workload,
        lambda name, whole: found.update({name: whole.clone(memory_format=torch.preserve_format)}),
        names,
    )
    return found, why


def check(workload):
    """Compare with the plain construction; return why the state was built whole."""
    expected = initial_state(workload)
    found, why = visited(workload)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype is tensor.dtype, name
        assert torch.equal(found[name], tensor), name
    return why


class Holder(nn.Module):
    """A module that holds what it is given."""

    def __init__(self, **given):
        super().__init__()
        for name, value in given.items():
            if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)


@pytest.mark.parametrize(
    "workload",
    [
        models.mlp(),
        models.decoder(),
        models.decoder(dtype=torch.bfloat16),
        models.llama(),
        models.conv_net(),
        models.experts(),
    ],
    ids=["mlp", "tied decoder", "in bfloat16", "llama", "conv net", "experts"],
)
def test_models_have_the_bits_of_the_plain_construction(workload):
    assert check(workload) == ""


def linears(count=3):
    return nn.Sequential(*[nn.Linear(4, 4) for _ in range(count)])


def drawn_twice():
    model = linears()
    for layer in model:
        nn.init.normal_(layer.weight, std=0.02)
    return model


def scaled_later():
    scale, model = torch.rand(1), linears()
    with torch.no_grad():
        for layer in model:
            layer.weight.mul_(scale).add_(torch.randn(4, 4))
        model[0].bias.copy_(model[2].weight[0])
        model[2].weight[1:3] = 0
        model[1].weight[:, 2] += model[0].weight[:, 1]
    return model


def tied():
    model = Holder(a=nn.Linear(4, 4), b=nn.Linear(4, 4), c=nn.Linear(4, 4), d=nn.Linear(4, 4))
    model.b.weight = model.a.weight
    model.c.weight.data = model.a.weight.data
    model.d.weight = nn.Parameter(model.a.weight.t())
    with torch.no_grad():
        model.a.weight.mul_(2)
    return model


def split_from_one():
    query, key, value = torch.randn(12, 4).chunk(3)
    return Holder(
        query=nn.Parameter(query.clone()), key=nn.Parameter(key.clone()), value=nn.Parameter(value)
    )


def copied_layers():
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def seeded_inside():
    first = nn.Linear(4, 4)
    torch.manual_seed(5)
    second = nn.Linear(4, 4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        third = nn.Linear(4, 4)
    state = torch.get_rng_state()
    fourth = nn.Linear(4, 4)
    torch.set_rng_state(state)
    fifth = nn.Linear(4, 4)
    torch.manual_seed(torch.initial_seed() + 1)
    return nn.Sequential(first, second, third, fourth, fifth, nn.Linear(4, 4))


def own_generator():
    generator = torch.Generator().manual_seed(3)
    first = torch.randn(4, 4, generator=generator)
    both = torch.randn(4, generator=generator) + torch.randn(4)
    return Holder(
        first=nn.Parameter(first),
        plain=nn.Linear(4, 4),
        both=nn.Parameter(both + torch.randn(4, generator=generator)),
        last=nn.Parameter(torch.rand(5, generator=generator)),
    )


def rates():
    return nn.Sequential(*[nn.Linear(4, 4 + int(9 * r)) for r in torch.linspace(0, 1, 3).tolist()])


def real_data():
    numbers = np.random.default_rng(0)
    model = linears(2)
    with torch.no_grad():
        for layer in model:
            layer.weight.copy_(torch.from_numpy(numbers.standard_normal((4, 4))))
    model[0].bias = nn.Parameter(torch.from_numpy(numbers.standard_normal(4)).float())
    return model


def special_types():
    torch.set_default_dtype(torch.float64)
    try:
        wide = nn.Linear(5, 5)
        halves = torch.arange(4) / 2
    finally:
        torch.set_default_dtype(torch.float32)
    return Holder(
        wide=wide,
        halves=halves,
        narrow=nn.Parameter(torch.randn(70, 50, dtype=torch.float16)),
        last=nn.Conv2d(8, 8, 3).to(memory_format=torch.channels_last),
        order=torch.randperm(7),
        bits=torch.ones(4).view(torch.int32),
        empty=torch.zeros(0),
        mask=torch.tril(torch.ones(4, 4, dtype=torch.bool)),
        table=nn.Embedding(5, 3, padding_idx=1),
    )


@pytest.mark.parametrize(
    "model",
    [
        *(drawn_twice, scaled_later, tied, split_from_one, copied_layers, seeded_inside),
        *(own_generator, rates, real_data, special_types),
    ],
)
def test_factories_of_all_kinds_are_put_off(model):
    assert check(workload_of(model)) == ""
    assert check(workload_of(model, Adafactor())) == ""


def test_a_state_that_is_read_from_a_file_is_put_off(tmp_path):
    torch.save(nn.Linear(4, 4).state_dict(), tmp_path / "layer.pt")

    def model():
        made = linears(2)
        made[0].load_state_dict(torch.load(tmp_path / "layer.pt"))
        made[1].load_state_dict(torch.load(tmp_path / "layer.pt"), assign=True)
        return made

    assert check(workload_of(model)) == ""


def random_width():
    return nn.Linear(4, 3 + int(torch.rand(()).item() * 10))


def one_buffer_for_all():
    numbers, buffer, model = np.random.default_rng(0), np.empty((4, 4)), linears(2)
    with torch.no_grad():
        for layer in model:
            buffer[:] = numbers.standard_normal((4, 4))
            layer.weight.copy_(torch.from_numpy(buffer))
    return model


def by_numpy():
    return Holder(angles=torch.from_numpy(torch.arange(4).numpy() * 2), a=nn.Linear(4, 4))


def swallows_errors():
    try:
        width = 3 + int(torch.rand(()).item() * 10)
    except Exception:
        width = 3
    return nn.Linear(4, width)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (random_width, "_local_scalar_dense.default: the model factory reads random values"),
        (swallows_errors, "reads random values"),
        (one_buffer_for_all, "changes data after it was copied"),
        (by_numpy, "numpy"),
    ],
)
def test_what_cannot_be_put_off_is_built_whole_and_says_why(model, reason):
    assert reason in check(workload_of(model))


def test_a_generator_is_back_where_it_was_before_the_state_is_built_whole():
    generator = torch.Generator().manual_seed(1)

    def model():
        drawn = torch.rand(3, generator=generator)
        return Holder(drawn=nn.Parameter(drawn), chosen=nn.Linear(4, int(drawn[0].item() * 0) + 1))

    found, why = visited(workload_of(model, SGD()))
    assert why
    assert torch.equal(found["drawn"], torch.rand(3, generator=generator.manual_seed(1)))


def test_the_callers_random_state_is_left_alone():
    before = torch.get_rng_state()
    visited(models.decoder())
    assert torch.equal(before, torch.get_rng_state())


def test_only_what_is_wanted_is_made_and_it_has_the_same_bits():
    workload = models.decoder()
    expected = initial_state(workload)
    names = ["layers.1.up.weight", "optimizer.exp_avg.norm.weight", "angles", "head.weight"]
    found, why = visited(workload, names)
    assert why == ""
    assert sorted(found) == sorted(set(names) & set(expected))
    assert all(torch.equal(found[name], expected[name]) for name in found)


class Averaging(SGD):
    """SGD that starts with a copy of the parameter."""

    def slot_names(self, parameter):
        return ("average",)

    def slots(self, parameter):
        return {"average": parameter.clone()}


def test_an_optimizer_of_ones_own_may_start_from_the_parameters():
    workload = workload_of(drawn_twice, Averaging())
    assert isinstance(workload.pure_optimizer, Optimizer)
    assert check(workload) == ""


def test_no_more_than_one_whole_tensor_is_alive():
    def model():
        made = nn.Sequential(*[nn.Linear(256, 256) for _ in range(8)], nn.Linear(256, 512))
        for layer in made:
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        return made

    workload = workload_of(model)
    largest = 256 * 512 * 4
    with Alive() as plain:
        state = initial_state(workload)
    assert plain.most > 20 * largest
    del state
    with Alive() as found:
        assert visit_initial_state(workload, lambda name, whole: None) == ""
    assert found.largest == largest
    # States of the generator and single numbers are small change.
    assert found.most < largest + 100_000
