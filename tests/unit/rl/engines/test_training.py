"""The loop, with samples made in this process: lags, records, checkpoints."""

from collections import Counter

import pytest
import torch

from tests.unit.rl import small
from weft.core.errors import FileError, MismatchError, RunError
from weft.core.records import RecordLog, read_records
from weft.rl.buffer import SampleBuffer
from weft.rl.engines.intake import Intake, whole_share
from weft.rl.engines.local import LocalFleet
from weft.rl.engines.training import Training


class Run:
    """A training of the small task, with what belongs to it."""

    def __init__(self, folder=None, *, lag=0, order="fifo", every=50, seed=0, sink=None, **method):
        given = small.task()
        batch = given.group * given.groups_per_step
        job = whole_share(given.groups_per_step, 4 if order == "random" else 1)
        buffer = SampleBuffer((lag + 1) * batch, lag, batch=batch)
        self.intake = Intake(buffer, group=given.group, job=job)
        self.learner = small.learner(max_lag=lag, given=given, **method)
        self.fleet = LocalFleet(self.intake, given, seed=seed, order=order)
        self.training = Training(
            self.learner,
            self.intake,
            self.fleet,
            identity={"seed": seed, "lag": lag},
            folder=folder,
            about={"task": "small"},
            sink=sink,
            checkpoint_every=every,
        )
        self.told = []
        self.sink = sink

    def go(self, steps, *, resume=False, **arguments):
        if resume:
            self.training.resume()
        else:
            self.training.begin()
        try:
            done = self.training.run(steps, on_step=self.told.append, **arguments)
        finally:
            self.fleet.close()
        return done

    @property
    def weights(self):
        return torch.cat([p.detach().flatten() for p in self.learner.model.parameters()])


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_in_order_each_sample_is_as_old_as_was_asked_for(lag):
    run = Run(lag=lag)
    assert run.go(7)
    assert [told.lags for told in run.told] == [{min(step, lag): 16} for step in range(7)]


def test_in_order_prompts_are_trained_in_order():
    run = Run(lag=2)
    run.go(4)
    assert [n for told in run.told for n in told.prompts] == list(range(16))


def test_at_random_lags_are_mixed_and_within_the_bound():
    run = Run(lag=3, order="random")
    run.go(40)
    lags = Counter()
    for told in run.told:
        lags.update(told.lags)
    assert set(lags) == {0, 1, 2, 3}
    assert any(len(told.lags) > 1 for told in run.told)
    numbers = [n for told in run.told for n in told.prompts]
    assert len(set(numbers)) == len(numbers) == 160


@pytest.mark.parametrize("order", ["fifo", "random"])
def test_a_run_is_the_same_each_time_and_another_with_another_seed(order):
    found = []
    for seed in (0, 0, 1):
        run = Run(lag=2, order=order, seed=seed)
        run.go(5)
        found.append(run.weights)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("method", [{}, {"gac": True, "compensation": 20.0}])
def test_a_run_that_was_broken_off_goes_on_bit_for_bit(tmp_path, method):
    straight = Run(lag=2, **method)
    straight.go(8)
    Run(tmp_path, lag=2, **method).go(5)
    other = Run(tmp_path, lag=2, **method)
    other.go(8, resume=True)
    assert torch.equal(straight.weights, other.weights)
    assert [told.step for told in other.told] == [6, 7, 8]
    assert other.learner.version == other.intake.buffer.version == 8


def test_records_say_what_happened(tmp_path):
    run = Run(tmp_path, lag=1, gac=True)
    run.go(3)
    (about,) = read_records(tmp_path / "records.jsonl", "rl-run")
    assert about.fields == {"task": "small"}
    steps = list(read_records(tmp_path / "records.jsonl", "rl-step"))
    assert [step.fields["step"] for step in steps] == [1, 2, 3]
    assert [step.fields["lags"] for step in steps] == [{"0": 16}, {"1": 16}, {"1": 16}]
    assert steps[0].fields["regime"] == "first"
    assert all(step.fields["fresh_reward"] is not None for step in steps)
    seconds = [step.fields["seconds"] for step in steps]
    assert seconds == sorted(seconds) and seconds[0] > 0


def test_records_of_steps_that_are_taken_again_are_taken_back(tmp_path):
    class Killed(Exception):
        pass

    def kill(told):
        if told.step == 5:
            raise Killed

    first = Run(tmp_path, lag=2, every=3)
    first.training.begin()
    with pytest.raises(Killed):
        first.training.run(9, on_step=kill)
    before = [r.fields["step"] for r in read_records(tmp_path / "records.jsonl", "rl-step")]
    assert before == [1, 2, 3, 4, 5]
    Run(tmp_path, lag=2).go(6, resume=True)
    steps = list(read_records(tmp_path / "records.jsonl", "rl-step"))
    assert [step.fields["step"] for step in steps] == [1, 2, 3, 4, 5, 6]
    numbers = [n for step in steps for n in step.fields["prompts"]]
    assert numbers == list(range(24))


def test_stopping_leaves_a_checkpoint(tmp_path):
    run = Run(tmp_path, lag=1)
    assert not run.go(9, stopping=lambda: len(run.told) == 2)
    other = Run(tmp_path, lag=1)
    assert other.go(4, resume=True)
    assert [told.step for told in other.told] == [3, 4]


def test_a_resumed_run_that_is_done_does_nothing(tmp_path):
    Run(tmp_path).go(2)
    run = Run(tmp_path)
    assert run.go(2, resume=True) and run.told == []


def test_a_fleet_that_fails_leaves_a_checkpoint(tmp_path):
    run = Run(tmp_path, lag=1)
    work = run.fleet.work

    def fail():
        if len(run.told) == 3:
            raise RunError(need="actors", got="none")
        return work()

    run.fleet.work = fail
    with pytest.raises(RunError):
        run.go(9)
    other = Run(tmp_path, lag=1)
    other.training.resume()
    assert other.learner.version == 3


def test_weights_that_ran_away_do_not_replace_a_checkpoint(tmp_path):
    run = Run(tmp_path, every=2, learning_rate=1e30)
    with pytest.raises(RunError, match="finite"):
        run.go(9)
    assert len(run.told) == 1 and not (tmp_path / "checkpoint.pt").exists()


def test_a_folder_with_a_run_is_not_begun_in(tmp_path):
    Run(tmp_path).go(1)
    with pytest.raises(FileError, match="--resume"):
        Run(tmp_path).training.begin()


def test_the_checkpoint_of_another_run_is_refused(tmp_path):
    Run(tmp_path, lag=1).go(1)
    with pytest.raises(MismatchError, match="lag 1 instead of 2"):
        Run(tmp_path, lag=2).training.resume()


def test_without_a_folder_there_is_nothing_to_resume():
    with pytest.raises(FileError, match="folder"):
        Run().training.resume()


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [("rl-run", {"seed": 3}, "seed 3 instead of 0"), ("step", {}, "another kind: step")],
)
def test_records_of_something_else_are_not_deleted(tmp_path, kind, fields, says):
    path = tmp_path / "records.jsonl"
    RecordLog(path).append(kind, **fields)
    with pytest.raises(MismatchError, match=says):
        Run(tmp_path).training.resume()
    assert len(list(read_records(path))) == 1


def test_a_request_to_stop_is_heard_between_jobs_before_the_first_step():
    run = Run(lag=50)
    asked = iter([False, False, True])
    assert not run.go(60, stopping=lambda: next(asked))
    assert run.intake.buffer.waiting == 32 and run.told == []


def test_records_are_shown_as_they_are_written(tmp_path):
    class Shown(list):
        write = list.append

    run = Run(tmp_path, sink=Shown())
    run.go(2)
    shown = [record.to_json() for record in run.sink]
    assert shown == [record.to_json() for record in read_records(tmp_path / "records.jsonl")]
    assert len(shown) == 3


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(tmp_path):
    Run(tmp_path).go(2)
    (tmp_path / "checkpoint.pt").unlink()
    other = Run(tmp_path)
    assert not other.training.resume()
    other.training.run(1)
    steps = list(read_records(tmp_path / "records.jsonl", "rl-step"))
    assert [step.fields["step"] for step in steps] == [1]
