"""A pipeline of two stages on one rank: what it holds, copies, frees and records."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from tests.alive import Alive
from weft.capture import AdamW, Workload, capture, initial_state, make_step
from weft.core.errors import InputError
from weft.core.records import RecordLog, read_records
from weft.machine.presets import preset
from weft.parallel.pipeline.expert import pipeline_expert
from weft.runtime.deploy import deploy
from weft.runtime.step import step_seed
from weft.runtime.train import Schedule, train
from weft.runtime.world import alone

WIDTH = 256


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(WIDTH, WIDTH) for _ in range(6)])
        self.register_buffer("shift", torch.ones(WIDTH))

    def forward(self, x):
        return self.layers(x) + self.shift


def workload():
    return Workload(
        name="net",
        model=lambda: Net().double(),
        loss=lambda model, batch: model(batch["x"]).square().mean(),
        batch=lambda step: {"x": torch.full((4, WIDTH), 0.1 * (step + 1), dtype=torch.float64)},
        optimizer=AdamW(lr=1e-2),
    )


@functools.cache
def program():
    return capture(workload())


@functools.cache
def plan():
    return pipeline_expert(
        program(), preset("dgx-h100x1"), pp=1, chunks=2, micro_batches=2, schedule="interleaved"
    )


def step():
    return deploy(plan(), workload(), world=alone(), program=program())


def test_it_follows_one_process():
    run, state, pipeline = make_step(workload()), initial_state(workload()), step()
    for number in range(3):
        batch = workload().batch(number)
        loss, state = run(state, batch, torch.tensor(step_seed(0, number)))
        torch.testing.assert_close(pipeline(batch), loss)
    for name, tensor in pipeline.state().items():
        torch.testing.assert_close(tensor, state[name], msg=name)


def test_it_starts_with_the_bits_of_the_plain_state():
    state, pipeline = initial_state(workload()), step()
    assert pipeline.built_whole == ""
    assert pipeline.state().keys() == state.keys()
    assert all(torch.equal(pipeline.state()[name], state[name]) for name in state)


def test_a_state_that_cannot_be_put_off_is_the_same_and_says_why():
    def model():
        made = Net().double()
        made.scale = float(made.layers[0].weight.max())
        return made

    odd = Workload(
        name="net",
        model=model,
        loss=workload().loss,
        batch=workload().batch,
        optimizer=AdamW(lr=1e-2),
    )
    pipeline = deploy(plan(), odd, world=alone(), program=program())
    assert "reads random values" in pipeline.built_whole
    state = initial_state(odd)
    assert all(torch.equal(pipeline.state()[name], state[name]) for name in state)


def test_next_values_share_memory_with_nothing():
    pipeline = step()
    batch = workload().batch(0)
    pipeline(batch)
    pipeline(batch)
    storages = [tensor.untyped_storage() for tensor in pipeline.state().values()]
    assert len({storage.data_ptr() for storage in storages}) == len(storages)
    for tensor in pipeline.state().values():
        assert tensor.is_contiguous()
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def test_what_the_update_replaces_is_freed_and_not_copied():
    pipeline = step()
    batch = workload().batch(0)
    pipeline(batch)
    parameters = 6 * WIDTH * WIDTH * 8
    with Alive() as found:
        for tensor in pipeline.state().values():
            found.see(tensor)
        del tensor
        pipeline(batch)
    # Parameters, two moments, and gradients; then what one update needs, and activations.
    assert found.most < 5.5 * parameters


def test_a_batch_that_does_not_fit_is_refused_and_the_next_one_is_taken():
    pipeline, plain = step(), step()
    batch = workload().batch(0)
    for wrong in ({}, {"x": batch["x"][:2]}, {"x": batch["x"].float()}):
        with pytest.raises(InputError, match=r"batch entry 'x' of type f64\[4,256\]"):
            pipeline(wrong)
    assert torch.equal(pipeline(batch), plain(batch))


def test_the_end_of_a_run_records_each_rank_beside_its_prediction(tmp_path):
    log = RecordLog(tmp_path / "run.jsonl")
    train(step(), workload().batch, Schedule(steps=3), log=log)
    (start,) = read_records(tmp_path / "run.jsonl", "run")
    assert start.fields["built_whole"] == ""
    (rank,) = [record.fields for record in read_records(tmp_path / "run.jsonl", "rank")]
    assert (rank["rank"], rank["group"], rank["stages"], rank["steps"]) == (0, 0, [0, 1], 2)
    (end,) = read_records(tmp_path / "run.jsonl", "end")
    assert [rank["peak_bytes"]] == end.fields["peak_bytes"]
    assert 0 <= rank["waited"] < 1
    assert 0 <= rank["exposed_s"] < rank["step_s"]
    assert rank["predicted_step_s"] == plan().prediction.step_s
    assert rank["predicted_waited"] == plan().time.waiting(0)
    assert rank["predicted_peak_bytes"] == plan().prediction.group_peak_bytes[0]


def test_a_step_without_stages_records_no_ranks(tmp_path):
    from tests.unit.runtime import workload as tiny

    log = RecordLog(tmp_path / "run.jsonl")
    train(tiny.step(), tiny.tiny().batch, Schedule(steps=1), log=log)
    assert list(read_records(tmp_path / "run.jsonl", "rank")) == []


def test_a_group_that_never_works_waits_all_the_time():
    assert plan().time.waiting(0) == pytest.approx(plan().time.bubble)
