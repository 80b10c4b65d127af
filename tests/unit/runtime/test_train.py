"""The loop: records, checkpoints, and an orderly stop."""

import logging
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.unit.runtime import workload
from weft.core.errors import FileError, InputError, MismatchError, RunError
from weft.core.records import RecordLog, read_records
from weft.runtime.checkpoint import stored_steps
from weft.runtime.failure import Progress
from weft.runtime.train import Schedule, _checksum, _require_same_batch, train
from weft.runtime.world import alone


def records(path, kind):
    return [record.fields for record in read_records(path, kind)]


def test_every_step_is_done_once_recorded_and_reported(tmp_path):
    seen, log = [], RecordLog(tmp_path / "run.jsonl")
    outcome = train(
        workload.step(), workload.tiny().batch, Schedule(steps=4), log=log, on_step=seen.append
    )
    assert [done.step for done in outcome.done] == [0, 1, 2, 3]
    assert tuple(seen) == outcome.done
    recorded = records(tmp_path / "run.jsonl", "step")
    assert [(r["step"], r["loss"], r["step_s"]) for r in recorded] == [
        (d.step, d.loss, d.step_s) for d in outcome.done
    ]
    assert {r["samples"] for r in recorded} == {8}
    assert all(done.step_s > 0 for done in outcome.done)


def test_the_start_and_the_end_are_recorded(tmp_path):
    train(
        workload.step(),
        workload.tiny().batch,
        Schedule(steps=1),
        log=RecordLog(tmp_path / "run.jsonl"),
    )
    (start,) = records(tmp_path / "run.jsonl", "run")
    assert start["program_digest"] == workload.program().digest
    assert (start["ranks"], start["meshes"], start["first_step"]) == (1, [[1]], 0)
    assert start["predicted_step_s"] == workload.plan().prediction.step_s
    (end,) = records(tmp_path / "run.jsonl", "end")
    assert (end["steps"], end["stopped"]) == (1, False)
    assert end["peak_bytes"][0] > 1e6


def test_checkpoints_come_at_their_interval_and_at_the_end(tmp_path):
    schedule = Schedule(steps=5, checkpoints=tmp_path, checkpoint_every=2, keep=9)
    train(workload.step(), workload.tiny().batch, schedule)
    assert stored_steps(tmp_path) == [2, 4, 5]


def test_a_resumed_run_continues_the_same_curve(tmp_path):
    whole = train(workload.step(), workload.tiny().batch, Schedule(steps=6))
    first = Schedule(steps=3, checkpoints=tmp_path)
    begun = train(workload.step(), workload.tiny().batch, first)
    rest = Schedule(steps=6, checkpoints=tmp_path, resume=True)
    ended = train(workload.step(), workload.tiny().batch, rest)
    losses = [done.loss for done in (*begun.done, *ended.done)]
    assert losses == [done.loss for done in whole.done]


def test_a_request_to_stop_ends_after_the_step_with_a_checkpoint(tmp_path):
    tiny = workload.tiny()
    handler = signal.getsignal(signal.SIGTERM)

    def batch(step):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return tiny.batch(step)

    outcome = train(workload.step(), batch, Schedule(steps=9, checkpoints=tmp_path))
    assert outcome.stopped
    assert [done.step for done in outcome.done] == [0, 1, 2]
    assert stored_steps(tmp_path) == [3]
    assert signal.getsignal(signal.SIGTERM) is handler


def broken_from(step, value):
    """Batches whose loss is no number from a step on."""
    tiny = workload.tiny()

    def batch(number):
        bad = {"y": torch.full((8, 2), value)} if number >= step else {}
        return {**tiny.batch(number), **bad}

    return batch


@pytest.mark.parametrize(("value", "spelled"), [(torch.inf, "inf"), (torch.nan, "nan")])
def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_checkpoints_of_before(
    tmp_path, value, spelled
):
    folder, log = tmp_path / "kept", RecordLog(tmp_path / "run.jsonl")
    schedule = Schedule(steps=9, checkpoints=folder, checkpoint_every=1, keep=2)
    with pytest.raises(RunError, match=f"loss {spelled} in step 3") as caught:
        train(workload.step(), broken_from(3, value), schedule, log=log)
    assert caught.value.step == 3
    assert "learning rate" in caught.value.hint
    assert stored_steps(folder) == [2, 3]
    assert [r["loss"] for r in records(tmp_path / "run.jsonl", "step")][3:] == [spelled]


def test_a_new_run_is_refused_in_a_folder_with_checkpoints_of_another(tmp_path):
    schedule = Schedule(steps=2, checkpoints=tmp_path)
    train(workload.step(), workload.tiny().batch, schedule)
    fresh = workload.step()
    with pytest.raises(FileError, match="step 2 of an earlier run") as caught:
        train(fresh, workload.tiny().batch, schedule)
    assert "--resume" in caught.value.hint
    assert fresh.number == 0, "before any training"


def no_batch(number):
    raise AssertionError(f"step {number} must not begin")


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_cannot_be_used_is_found_before_the_first_step(tmp_path, resume):
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(FileError, match="file"):
            train(workload.step(), no_batch, Schedule(steps=1, checkpoints=path, resume=resume))


def test_a_folder_that_cannot_be_written_is_found_before_the_first_step(tmp_path, monkeypatch):
    def refuse(path, _):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(FileError, match="Permission denied"):
        train(workload.step(), no_batch, Schedule(steps=1, checkpoints=tmp_path))


def test_resuming_without_a_checkpoint_is_said(tmp_path, caplog):
    schedule = Schedule(steps=1, checkpoints=tmp_path, resume=True)
    with caplog.at_level(logging.WARNING, logger="weft.runtime"):
        assert train(workload.step(), workload.tiny().batch, schedule).first_step == 0
    (said,) = (r.getMessage() for r in caplog.records if r.name == "weft.runtime")
    assert said == f"no checkpoint in {tmp_path}: starting from the beginning"
    caplog.clear()
    assert train(workload.step(), workload.tiny().batch, schedule).first_step == 1
    assert not [r for r in caplog.records if r.name == "weft.runtime"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step-00000001"]


def test_batches_that_differ_between_ranks_are_found_in_the_first_step(monkeypatch):
    class TwoRanks:
        number = 4
        world = replace(alone(), size=2, store=object())

    batch = {"x": torch.ones(2, 3).t(), "n": torch.tensor(7), "h": torch.ones(3).bfloat16()}
    others = []
    module = sys.modules[train.__module__]  # the package's `train` is the function
    monkeypatch.setattr(module, "gather_objects", lambda _, mine: [mine, *others])
    others[:] = [{key: _checksum(value.clone()) for key, value in batch.items()}]
    _require_same_batch(TwoRanks(), batch)
    for key, value in (("n", torch.tensor(8)), ("x", torch.zeros(3, 2)), ("z", torch.ones(1))):
        others[:] = [{k: _checksum(v) for k, v in {**batch, key: value}.items()}]
        with pytest.raises(MismatchError, match=f"entry '{key}' differs between rank 0 and rank 1"):
            _require_same_batch(TwoRanks(), batch)


@pytest.mark.parametrize("batch", [None, [torch.ones(2)]])
def test_a_batch_that_is_none_is_told_with_its_step(batch):
    tiny = workload.tiny()
    with pytest.raises(InputError, match="in the batch of step 1"):
        train(workload.step(), lambda n: batch if n == 1 else tiny.batch(n), Schedule(steps=3))


def test_progress_names_the_step_that_runs():
    progress, seen = Progress(), []

    def batch(step):
        seen.append(progress.step)
        return workload.tiny().batch(step)

    train(workload.step(), batch, Schedule(steps=2), progress=progress)
    assert seen == [0, 1]


@pytest.mark.parametrize(
    "settings", [{"steps": -1}, {"steps": 1, "resume": True}, {"steps": 1, "checkpoint_every": 2}]
)
def test_a_schedule_that_makes_no_sense_is_refused(settings):
    with pytest.raises(InputError):
        Schedule(**settings)
