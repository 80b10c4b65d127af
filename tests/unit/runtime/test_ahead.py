"""Segments that Inductor compiles ahead of the first step."""

from __future__ import annotations

import functools
import weakref

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from weft.capture import AdamW, Workload, capture, initial_state, make_step
from weft.core.errors import RunError
from weft.core.records import RecordLog, read_records
from weft.machine.presets import preset
from weft.parallel.pipeline.expert import pipeline_expert
from weft.parallel.pipeline.segments import Part
from weft.runtime import ahead
from weft.runtime.deploy import deploy
from weft.runtime.step import step_seed
from weft.runtime.train import Schedule, train
from weft.runtime.world import alone

WIDTH = 64


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(WIDTH, 2 * WIDTH)
        self.down = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x):
        # A transposition whose result the backward pass reads.
        return x + self.down(torch.tanh(self.up(x)).transpose(0, 1).contiguous().transpose(0, 1))


def workload(blocks):
    return Workload(
        name="blocks",
        model=lambda: nn.Sequential(*[Block() for _ in range(blocks)]).double(),
        loss=lambda model, batch: model(batch["x"]).square().mean(),
        batch=lambda step: {"x": torch.full((4, WIDTH), 0.1 * (step + 1), dtype=torch.float64)},
        optimizer=AdamW(lr=1e-2),
    )


@functools.cache
def program(blocks):
    return capture(workload(blocks))


def pipeline(blocks, chunks, **options):
    plan = pipeline_expert(
        program(blocks),
        preset("dgx-h100x1"),
        pp=1,
        chunks=chunks,
        micro_batches=2,
        schedule="interleaved",
    )
    return deploy(
        plan,
        workload(blocks),
        compile="inductor",
        world=alone(),
        program=program(blocks),
        **options,
    )


@pytest.fixture
def stand_in(monkeypatch):
    """In place of Inductor: the graphs as they are, and which there were."""
    built = []

    def compile_module(build, given, compiler):
        (inputs,) = given
        module = build()
        built.append((str(module.graph), tuple(map(str, inputs))))
        return module

    monkeypatch.setattr(ahead, "compile_module", compile_module)
    return built


def test_stages_that_are_alike_are_compiled_once_and_said_by_name(stand_in):
    said = []
    step = pipeline(4, 4, tell=said.append)
    assert len(set(stand_in)) == len(stand_in) == len(said)
    passes = [line for line in said if "forward pass" in line]
    # The first and the last stage have graphs of their own, or share the one of the middle.
    assert 1 <= len(passes) <= 3
    assert any("stages" in line and "1, 2" in line for line in passes)
    assert said[0].startswith(f"compiling 1 of {len(said)}: ")
    follows_one_process(step, workload(4))


def test_nothing_is_left_to_compile_in_a_step(stand_in):
    step = pipeline(2, 2)
    count = len(stand_in)
    step(workload(2).batch(0))
    step(workload(2).batch(1))
    assert len(stand_in) == count


def follows_one_process(step, about):
    run, state = make_step(about), initial_state(about)
    for number in range(3):
        batch = about.batch(number)
        loss, state = run(state, batch, torch.tensor(step_seed(0, number)))
        torch.testing.assert_close(step(batch), loss)
    for name, tensor in step.state().items():
        torch.testing.assert_close(tensor, state[name], msg=name)
        assert tensor.is_contiguous()


def test_an_error_of_the_compiler_names_the_graph(monkeypatch):
    def broken(*_):
        raise ValueError("no kernel for this")

    monkeypatch.setattr(torch._inductor, "compile", broken)
    with pytest.raises(RunError, match="no kernel for this") as caught:
        pipeline(2, 2)
    assert "of stage" in caught.value.where
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.slow
# Inductor's own imports use a part of torch that torch has deprecated.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
def test_a_compiled_pipeline_follows_one_process_and_frees_what_dies(tmp_path):
    step = pipeline(2, 2)
    follows_one_process(step, workload(2))
    (first, *_) = step._stages.values()
    key = (Part.WEIGHTS, "")
    given = [torch.rand(t.shape, dtype=torch.float64) for t in first.types(key)]
    watched = [weakref.ref(tensor) for tensor in given]
    alive = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            alive.append(sum(ref() is not None for ref in watched))
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Watch():
        first._calls[key](given)
    assert given == []
    assert alive[0] == len(watched)
    assert alive[-1] < len(watched)
    assert all(ref() is None for ref in watched)

    log = RecordLog(tmp_path / "run.jsonl")
    train(step, workload(2).batch, Schedule(steps=5), log=log)
    (rank,) = [record.fields for record in read_records(tmp_path / "run.jsonl", "rank")]
    assert rank["exposed_s"] is None
    assert 0 <= rank["waited"] < 1
