"""The loop: records, checkpoints, and an orderly stop."""

import os
import signal

import pytest
import torch

from tests.unit.runtime import workload
from weft.core.errors import InputError
from weft.core.records import RecordLog, read_records
from weft.runtime.checkpoint import stored_steps
from weft.runtime.failure import Progress
from weft.runtime.train import Schedule, train


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
    assert (start["ranks"], start["mesh"], start["first_step"]) == (1, [1], 0)
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


def test_a_loss_that_is_no_number_is_recorded_as_none(tmp_path):
    tiny = workload.tiny()

    def batch(step):
        return {**tiny.batch(step), "y": torch.full((8, 2), torch.inf)}

    log = RecordLog(tmp_path / "run.jsonl")
    outcome = train(workload.step(), batch, Schedule(steps=1), log=log)
    assert outcome.done[0].loss == float("inf")
    assert records(tmp_path / "run.jsonl", "step")[0]["loss"] is None


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
