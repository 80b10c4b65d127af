"""A recipe's policy is trained from settings to summary."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.rl import small
from weft.core.errors import FileError, InputError, MismatchError
from weft.core.records import read_records
from weft.rl.engines.folder import alone_in
from weft.workflow.recipe import load_task
from weft.workflow.train_rl import CORRECTIONS, TrainSettings, train_rl

RECIPE = f"{small.__file__}:small"


def settings(folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    return TrainSettings(recipe=RECIPE, folder=folder, **{"steps": 3, **changes})


@pytest.fixture(autouse=True)
def interruptible():
    """As in a terminal, also where tests run in workers that take no notice of Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The folder of a run of three steps, for those who only look at it."""
    folder = tmp_path_factory.mktemp("begun")
    train_rl(settings(folder))
    return folder


def test_a_run_leaves_records_a_checkpoint_and_a_summary(tmp_path):
    told = []
    summary = train_rl(
        settings(tmp_path, staleness=1, gac=True), about={"hardware": "a"}, on_step=told.append
    )
    assert [one["step"] for one in told] == [1, 2, 3]
    (about,) = read_records(tmp_path / "records.jsonl", "rl-run")
    assert about.fields["method"] == "truncated+gac+kl" and about.fields["hardware"] == "a"
    assert about.fields["staleness"] == 1 and about.fields["learning_rate"] == 3e-3
    assert len(list(read_records(tmp_path / "records.jsonl", "rl-step"))) == 3
    assert (tmp_path / "checkpoint.pt").exists()
    plain = json.loads((tmp_path / "summary.json").read_text())
    assert plain["steps"] == summary.steps == 3
    assert plain["lags"] == {"0": 16, "1": 32}
    assert plain["reward"] == summary.reward == told[-1]["reward"]
    assert summary.mean_reward == pytest.approx(sum(one["reward"] for one in told) / 3)


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_every_correction_runs_with_everything_around_it(tmp_path, correction):
    summary = train_rl(
        settings(
            tmp_path,
            correction=correction,
            staleness=2,
            gac=True,
            compensation=10.0,
            kl=0.1,
            token_budget=2.0,
            micro_batch=5,
            order="random",
        )
    )
    assert summary.steps == 3
    (about,) = read_records(tmp_path / "records.jsonl", "rl-run")
    assert about.fields["method"] == f"{correction}+gac+dc+kl+budget"
    last = list(read_records(tmp_path / "records.jsonl", "rl-step"))[-1]
    assert last.fields["multiplier"] > 0


def test_methods_differ_in_what_they_learn(tmp_path):
    losses = set()
    for name, changes in {
        "plain": {},
        "none": {"correction": "none"},
        "kl": {"kl": 5.0},
        "rate": {"learning_rate": 1e-2},
        "seed": {"seed": 1},
    }.items():
        given = settings(tmp_path / name, staleness=2, steps=4, **changes)
        train_rl(given)
        last = list(read_records(tmp_path / name / "records.jsonl", "rl-step"))[-1]
        losses.add(last.fields["loss"])
    assert len(losses) == 5


def test_a_run_goes_on_where_it_stopped(tmp_path):
    train_rl(settings(tmp_path))
    summary = train_rl(settings(tmp_path, steps=5, resume=True))
    assert summary.steps == 5
    steps = [r.fields["step"] for r in read_records(tmp_path / "records.jsonl", "rl-step")]
    assert steps == [1, 2, 3, 4, 5]


def test_a_run_that_is_done_has_nothing_to_tell(tmp_path):
    done = train_rl(settings(tmp_path))
    summary = train_rl(settings(tmp_path, resume=True))
    assert (summary.steps, summary.reward, summary.samples_per_s) == (3, done.reward, None)
    assert json.loads((tmp_path / "summary.json").read_text())["reward"] == done.reward


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_after_the_step_at_hand(tmp_path, number):
    def ask(told):
        if told["step"] == 2:
            os.kill(os.getpid(), number)

    summary = train_rl(settings(tmp_path, steps=9), on_step=ask)
    assert summary.stopped == number and summary.steps == 2
    assert train_rl(settings(tmp_path, steps=4, resume=True)).steps == 4


def test_a_second_signal_ends_it_at_once(tmp_path):
    def ask(told):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_rl(settings(tmp_path), on_step=ask)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_that_is_ignored_stays_so(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        summary = train_rl(
            settings(tmp_path), on_step=lambda told: os.kill(os.getpid(), signal.SIGINT)
        )
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert summary.stopped is None and summary.steps == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"engine": "steam"},
        {"correction": "hope"},
        {"order": "none"},
        {"steps": 0},
        {"staleness": -1},
        {"workers": 0},
        {"seed": -1},
        {"steps": 4, "staleness": 4},
        {"workers": 2},
        {"address": "127.0.0.1:1"},
        {"engine": "ray", "order": "random"},
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(InputError):
        settings(tmp_path, **wrong)


def test_a_recipe_that_returns_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match="returned int"):
        train_rl(replace(settings(tmp_path), recipe=f"{small.__file__}:number"))


def test_a_folder_with_a_run_is_not_overwritten(begun):
    with pytest.raises(FileError, match="--resume"):
        train_rl(settings(begun))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"gac": True}, r"method truncated\+kl instead of truncated\+gac\+kl"),
        ({"learning_rate": 0.5}, "learning_rate 0.003 instead of 0.5"),
        ({"seed": 1}, "seed 0 instead of 1"),
    ],
)
def test_a_run_does_not_go_on_as_another(begun, changes, says):
    with pytest.raises(MismatchError, match=says):
        train_rl(settings(begun, steps=5, resume=True, **changes))


def test_a_torn_checkpoint_is_told(tmp_path, begun):
    whole = (begun / "checkpoint.pt").read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileError, match="anew in another folder"):
        train_rl(settings(tmp_path, resume=True))


def test_two_runs_do_not_write_to_one_folder(begun):
    with alone_in(begun), pytest.raises(FileError, match="no other run"):
        train_rl(settings(begun, resume=True))


def test_tensorboard_can_watch(tmp_path):
    pytest.importorskip("tensorboard", reason="needs TensorBoard: pip install 'weft[rl]'")
    train_rl(settings(tmp_path, tensorboard=True))
    assert len(list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))) == 1


def test_a_device_that_is_not_there_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="a device of this machine"):
        train_rl(settings(tmp_path, device="cuda:99"))
    assert not (tmp_path / "records.jsonl").exists()


def test_a_correction_without_a_name_is_none_of_them(tmp_path):
    with pytest.raises(InputError, match="correction: ppo, truncated"):
        settings(tmp_path, correction="")


def test_recipes_are_tasks():
    folder = Path(__file__).parents[3] / "recipes"
    assert load_task(f"{folder}/rl_reverse.py:rl_reverse").group == 8
    assert load_task(f"{folder}/rl_sort.py:rl_sort").group == 8


def test_the_summary_of_a_run_that_went_on_is_of_all_of_it(tmp_path):
    whole = train_rl(settings(tmp_path / "whole", steps=4, staleness=1))
    train_rl(settings(tmp_path / "parts", steps=2, staleness=1))
    parts = train_rl(settings(tmp_path / "parts", steps=4, staleness=1, resume=True))
    again = train_rl(settings(tmp_path / "parts", steps=4, staleness=1, resume=True))
    for own in (parts, again):
        assert (own.mean_reward, own.lags, own.reward) == (
            whole.mean_reward,
            whole.lags,
            whole.reward,
        )
    assert parts.samples_per_s is not None and again.samples_per_s is None
