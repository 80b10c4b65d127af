"""A module's tensors by name, and running it with others in their place."""

from __future__ import annotations

import torch
from torch import nn

from weft.capture.tensors import module_tensors


class Holder(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.tied = nn.Linear(2, 2, bias=False)
        self.tied.weight = self.inner.weight
        self.register_buffer("table", torch.zeros(3))
        self.plain = torch.arange(2.0)
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)


def values_of(found):
    return {name: t.detach() + 1.0 for name, t in (found.trainable | found.fixed).items()}


def test_parameters_buffers_and_plain_attributes_are_found():
    found = module_tensors(Holder())
    assert list(found.trainable) == ["inner.weight", "inner.bias"]
    assert list(found.fixed) == ["frozen", "table", "plain"]


def test_a_tied_tensor_is_replaced_in_all_its_places():
    model = Holder()
    found = module_tensors(model)
    values = values_of(found)
    with found.replaced(values):
        assert model.tied.weight is model.inner.weight is values["inner.weight"]
        assert model.plain is values["plain"]


def test_the_module_is_as_before_afterwards_even_after_an_error():
    model = Holder()
    before = [model.inner.weight, model.table, model.plain]
    found = module_tensors(model)
    try:
        with found.replaced(values_of(found)):
            raise KeyError
    except KeyError:
        pass
    now = [model.inner.weight, model.table, model.plain]
    assert all(a is b for a, b in zip(before, now, strict=True))
    assert isinstance(model.inner.weight, nn.Parameter)


def test_what_a_forward_assigns_is_reported_by_name():
    model = Holder()
    found = module_tensors(model)
    with found.replaced(values_of(found)) as assigned:
        model.table = model.table * 2.0
        model.plain = torch.ones(2)
    assert assigned["table"].tolist() == [2.0, 2.0, 2.0]
    assert assigned["plain"].tolist() == [1.0, 1.0]
    assert assigned.keys() == {"table", "plain"}
