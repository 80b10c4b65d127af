"""TRL's asynchronous trainer, on a task, with GAC in it."""

from __future__ import annotations

import pytest
import torch
from transformers import TrainerCallback

from tests.unit.rl.known import equal, weights
from tests.unit.rl.tiny import make_model, make_task
from weft.core.errors import FileError, InputError, MismatchError
from weft.core.records import read_records
from weft.rl import GACCallback, Regime
from weft.rl.trl import on_cpu, train
from weft.rl.trl.engine import _make_trainer
from weft.rl.trl.layout import sample_of
from weft.rl.trl.worker import ThreadWorker


class Reporter(TrainerCallback):
    def __init__(self):
        self.lines = []

    def on_log(self, args, state, control, logs=None, **_):
        self.lines.append(dict(logs))


def run_trainer(folder, callbacks, *, steps=5, staleness=2, task=None, **options):
    """TRL's own trainer, as a user makes it."""
    task = task or make_task()
    worker = ThreadWorker(task, staleness=staleness, seed=0, make_sample=sample_of)
    options = {
        "output_dir": str(folder),
        "max_steps": steps,
        "max_staleness": staleness,
        "learning_rate": 1e-3,
        "save_strategy": "no",
        **options,
    }
    with on_cpu():
        trainer = _make_trainer(task, folder, worker, callbacks, options)
        trainer.train()
    return trainer


def test_the_callback_finds_ages_and_tells_them(tmp_path):
    reporter, callback = Reporter(), GACCallback()
    seen = []

    class Watch(TrainerCallback):
        def on_optimizer_step(self, args, state, control, **_):
            seen.append((dict(callback.lags), callback.gac.staleness))

    run_trainer(tmp_path, [reporter, callback, Watch()])
    assert [sum(lags.values()) for lags, _ in seen] == [16] * 5
    assert seen[0] == ({0: 16}, 0.0)
    assert all(0 < age <= 2 for _, age in seen[1:])
    assert callback.gac.counts[Regime.PROJECT] > 0
    lines = [line for line in reporter.lines if "loss" in line]
    assert [line["gac/staleness"] for line in lines] == [age for _, age in seen]
    assert all("gac/cosine_raw" in line and "sample/staleness_mean" in line for line in lines)


def test_without_ages_gradients_are_changed_in_every_step(tmp_path):
    callback = GACCallback(ages=False)
    run_trainer(tmp_path, [callback])
    assert callback.lags is None and callback.gac.staleness is None


def test_weights_that_are_published_now_and_then_make_older_samples(tmp_path):
    callback, ages = GACCallback(), []

    class Watch(TrainerCallback):
        def on_optimizer_step(self, args, state, control, **_):
            ages.append(max(callback.lags))

    # With a version each two steps, the worker may be as many versions ahead: three batches.
    run_trainer(tmp_path, [callback, Watch()], steps=3, weight_sync_steps=2)
    assert ages == [0, 1, 2]


def test_compensation_gets_the_ages_too(tmp_path):
    callback, plain = GACCallback(compensation=50.0, measure_only=True), GACCallback()
    seen = []

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **_):
            seen.append((callback.compensation.staleness, dict(callback.lags)))

    run_trainer(tmp_path, [callback, Watch()])
    assert [given == lags for given, lags in seen] == [True] * 5
    assert callback.compensation.versions.keep == 4
    assert callback.compensation.version == 5
    assert callback.gac.counts[Regime.PROJECT] == 0
    assert plain.compensation is None


def test_steps_that_were_left_out_do_not_count_for_compensation():
    callback = GACCallback(compensation=1.0)
    callback._taken = {4: 4, 5: 4, 6: 5}  # the step after the fourth was skipped
    assert callback._own_lags({0: 1, 1: 2, 2: 3}, 6) == {0: 1, 1: 5}
    assert callback._own_lags({9: 1}, 6) == {9: 1}  # not known any more, as versions will say


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of six steps with two checkpoints."""
    folder, told = tmp_path_factory.mktemp("run"), []
    outcome = train(
        make_task(),
        steps=6,
        staleness=2,
        gac={"cosine_low": 0.01},
        seed=3,
        folder=folder,
        checkpoint_every=2,
        about={"recipe": "tiny"},
        on_step=told.append,
    )
    return folder, outcome, told


def test_records_tell_run_and_steps(run):
    folder, outcome, told = run
    begun, *steps = read_records(folder / "records.jsonl")
    assert (begun.kind, {step.kind for step in steps}) == ("rl-run", {"rl-step"})
    wanted = {"task": "reverse", "engine": "trl", "method": "ppo+gac", "seed": 3, "staleness": 2}
    assert wanted.items() <= begun.fields.items()
    assert (begun.fields["learning_rate"], begun.fields["recipe"]) == (3e-3, "tiny")
    assert begun.fields["versions"]["trl"]
    assert [step.fields["step"] for step in steps] == list(range(1, 7))
    assert tuple(told) == outcome.steps
    for step, kept in zip(steps, outcome.steps, strict=True):
        assert step.fields == kept
        assert (step.fields["samples"], sum(step.fields["lags"].values())) == (16, 16)
        assert step.fields["prompts"] == list(
            range(4 * (step.fields["step"] - 1), 4 * step.fields["step"])
        )
        assert 0.0 <= step.fields["reward"] <= 1.0
        assert step.fields["norm_raw"] == pytest.approx(
            min(1.0, step.fields["norm_unclipped"]), rel=1e-4
        )
    assert [step.fields["staleness"] for step in steps] == pytest.approx([0, 1, 2, 2, 2, 2], abs=1)
    assert all(int(lag) <= 2 for step in steps for lag in step.fields["lags"])
    # Answers are drawn with the probabilities that the trainer begins with.
    assert steps[0].fields["kl"] == pytest.approx(0.0, abs=1e-6)


def test_training_changes_the_model_and_says_by_how_much(run):
    _, outcome, _ = run
    assert not equal(weights(outcome.model), weights(make_model()))


def test_a_run_goes_on_with_its_decisions_prompts_and_records(run):
    folder, _, _ = run
    assert (folder / "checkpoint-6").is_dir() and not (folder / "checkpoint-2").exists()
    (folder / "checkpoint-6" / "trainer_state.json").unlink()  # as a kill leaves it
    outcome = train(
        make_task(),
        steps=7,
        staleness=2,
        gac={"cosine_low": 0.01},
        seed=3,
        folder=folder,
        resume=True,
    )
    assert [step["step"] for step in outcome.steps] == [5, 6, 7]
    assert outcome.steps[0]["regime"] != "first"  # the references were in the checkpoint
    assert outcome.steps[0]["prompts"] == list(range(16, 20))
    assert outcome.steps[0]["staleness"] == 0.0  # what waited is not in it
    steps = list(read_records(folder / "records.jsonl", "rl-step"))
    assert [step.fields["step"] for step in steps] == list(range(1, 8))
    kept = torch.load(folder / "checkpoint-4" / "optimizer.pt", weights_only=True)
    assert kept["gac"]["steps"] == 4
    assert len(list(read_records(folder / "records.jsonl", "rl-run"))) == 1


def test_a_run_of_something_else_is_not_gone_on_with(run):
    folder, _, _ = run
    with pytest.raises(MismatchError, match="seed 3 instead of 4"):
        train(make_task(), steps=8, staleness=2, seed=4, folder=folder, resume=True)
    with pytest.raises(FileError, match="holds one"):
        train(make_task(), steps=8, staleness=2, seed=3, folder=folder)


def test_nothing_to_go_on_from_is_said(tmp_path):
    for folder in (tmp_path, None):
        with pytest.raises(FileError, match="checkpoint to go on from"):
            train(make_task(), steps=2, folder=folder, resume=True)


def test_without_gac_gradients_are_looked_at_only():
    outcome = train(make_task(), steps=3, staleness=1)
    assert [step["regime"] for step in outcome.steps] == ["first", "safe", "safe"]
    assert all(step["norm_raw"] == step["norm_applied"] for step in outcome.steps)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"staleness": 0}, "at least 1"),
        ({"steps": 0}, "at least one step"),
        ({"checkpoint_every": 0}, "between checkpoints"),
        ({"gac": {"nonsense": 1}}, "nonsense"),
        ({"compensation": -1.0}, "strength"),
    ],
)
def test_wrong_numbers_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        train(make_task(), **{"steps": 1, **options})
