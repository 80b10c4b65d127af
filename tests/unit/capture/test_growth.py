"""A deep program grown from few layers is the program of a full trace, to the last digit."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.unit.capture import models
from weft.capture import SGD, AdamW, Workload, capture
from weft.capture import program as pipeline
from weft.capture.stack import Stack, cut, find_stack
from weft.parallel.pipeline.microbatch import in_micro_batches
from weft.program.lengthen import lengthen

DEPTH = 8

KINDS = {
    "gpt, tied": models.decoder,
    "gpt with dropout": lambda n: models.decoder(n, dropout=0.1),
    "llama": models.llama,
    "llama in bf16": lambda n: models.llama(n, dtype=torch.float32, compute_dtype=torch.bfloat16),
}


BASES = [(5, 2), (4, 1), (5, 1), (6, 3)]
"""Layers to start from, and the one that is repeated."""


@pytest.mark.parametrize(("base", "lower"), BASES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_grown_program_is_the_fully_traced_one(kind, base, lower):
    start, traced = capture(KINDS[kind](base)), capture(KINDS[kind](DEPTH))
    grown = lengthen(start, "layers", lower, DEPTH - base)
    assert grown is not None
    assert grown.program.digest == traced.digest
    assert grown.program == traced
    for node, origin in zip(traced.nodes, grown.origin, strict=True):
        assert (node.op, node.outputs) == (start.nodes[origin].op, start.nodes[origin].outputs)


@pytest.mark.parametrize("kind", KINDS)
def test_the_program_of_a_micro_batch_grows_as_well(kind):
    start, traced = (in_micro_batches(capture(KINDS[kind](n)), 2) for n in (4, DEPTH))
    grown = lengthen(start, "layers", 1, DEPTH - 4)
    assert grown is not None
    assert grown.program == traced


def test_growing_by_no_layer_changes_nothing():
    program = capture(models.llama(5))
    grown = lengthen(program, "layers", 2, 0)
    assert grown is not None
    assert grown.program == program


def test_a_program_without_the_layers_does_not_grow():
    program = capture(models.decoder(5))
    assert lengthen(program, "blocks", 2, 3) is None
    assert lengthen(program, "layers", 4, 3) is None


def test_layers_that_are_not_alike_do_not_grow():
    def change(number, depth, x):
        return x * 2.0 if number == 2 else x

    program = capture(loop(change, depth=5))
    assert lengthen(program, "layers", 2, 3) is None
    assert lengthen(program, "layers", 1, 3) is None


def test_something_that_reads_every_layer_does_not_grow():
    def reads_all(model, batch):
        x, total = batch["x"], 0.0
        for layer in model.layers:
            x = layer(x).tanh()
            total = total + x.square().mean()
        return total

    program = capture(replace(loop(lambda number, depth, x: x, depth=6), loss=reads_all))
    grown = lengthen(program, "layers", 2, 2)
    deep = replace(loop(lambda number, depth, x: x, depth=8), loss=reads_all)
    assert grown is None or grown.program == capture(deep)


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
    return pipeline.simplify(
        pipeline.to_program(pipeline.trace(workload, model, pipeline.first_batch(workload)))
    )


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
