"""A deep program grown from five layers is the program of a full trace, to the last digit."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from tests.unit.capture import models
from weft.capture import SGD, AdamW, Workload, capture
from weft.capture import program as pipeline
from weft.capture.replicate import BASE_DEPTH, replicate
from weft.capture.stack import Stack, cut, find_stack

DEPTH = 8

KINDS = {
    "gpt, tied": models.decoder,
    "gpt with dropout": lambda n: models.decoder(n, dropout=0.1),
    "llama": models.llama,
    "llama in bf16": lambda n: models.llama(n, dtype=torch.float32, compute_dtype=torch.bfloat16),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_grown_program_is_the_fully_traced_one(kind):
    grown = replicate(capture(KINDS[kind](BASE_DEPTH)), "layers", DEPTH)
    traced = capture(KINDS[kind](DEPTH))
    assert grown is not None
    assert grown.digest == traced.digest
    assert grown == traced


def test_growing_to_the_same_depth_changes_nothing():
    program = capture(models.llama(BASE_DEPTH))
    assert replicate(program, "layers", BASE_DEPTH) == program


def test_a_program_without_the_stack_does_not_grow():
    program = capture(models.decoder(BASE_DEPTH))
    assert replicate(program, "blocks", DEPTH) is None
    assert replicate(capture(models.decoder(4)), "layers", DEPTH) is None


class Loop(nn.Module):
    """A stack whose forward may depend on the number of a layer."""

    def __init__(self, depth, change):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(depth))
        self.change = change

    def forward(self, x):
        for number, layer in enumerate(self.layers):
            x = self.change(number, len(self.layers), layer(x).tanh())
        return x


def loop(change, depth=18, optimizer=None):
    return Workload(
        name="loop",
        model=lambda: Loop(depth, change).double(),
        loss=lambda model, batch: model(batch["x"]).square().mean(),
        batch=models.features,
        optimizer=optimizer or SGD(lr=0.1),
    )


def full(workload):
    model = pipeline.make_model(workload)
    return pipeline.simplify(pipeline.to_program(pipeline.trace(workload, model)))


@pytest.mark.parametrize("optimizer", [SGD(lr=0.1, momentum=0.9), AdamW()])
def test_a_deep_stack_is_captured_from_few_layers(optimizer, caplog):
    workload = loop(lambda number, depth, x: x, optimizer=optimizer)
    with caplog.at_level(logging.INFO, logger="weft.capture"):
        found = capture(workload)
    assert found == full(workload)
    assert "traced whole" not in caplog.text


SPECIAL = {
    "every second layer": lambda number, depth, x: x * 2.0 if number % 2 else x,
    "every seventh layer": lambda number, depth, x: x * 2.0 if number % 7 == 6 else x,
    "one layer": lambda number, depth, x: x + 1.0 if number == 11 else x,
    "by depth": lambda number, depth, x: x / depth,
    "by number": lambda number, depth, x: x * (number + 1.0),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_a_stack_of_unlike_layers_is_traced_whole_and_says_so(name, caplog):
    workload = loop(SPECIAL[name])
    with caplog.at_level(logging.INFO, logger="weft.capture"):
        found = capture(workload)
    assert found == full(workload)
    assert "traced whole" in caplog.text


def test_a_model_that_cannot_be_cut_is_traced_whole(caplog):
    def change(number, depth, x):
        return x if depth > 10 else x.missing

    workload = loop(change)
    with caplog.at_level(logging.INFO, logger="weft.capture"):
        assert capture(workload) == full(workload)
    assert "cut to 5 layers" in caplog.text


def test_a_stack_is_a_list_of_equal_layers():
    model = models.Decoder(6)
    assert find_stack(model, 6) == Stack(path="layers", depth=6)
    assert find_stack(model, 7) is None
    model.layers[3] = nn.Linear(2, 2)
    assert find_stack(model, 6) is None


def test_cutting_keeps_the_first_layers():
    model = models.Decoder(6)
    kept = list(model.layers[:5])
    cut(model, Stack(path="layers", depth=6), 5)
    assert list(model.layers) == kept
