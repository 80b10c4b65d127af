"""Reading runs, in whatever state their files are."""

import math

import numpy as np
import pytest

from tests.unit.report.rl_known import fields_of, write_run
from weft.core.errors import FileError, InputError
from weft.core.records import RecordLog
from weft.report.rl_runs import read_runs


def test_a_run_is_read_from_its_folder_or_its_file(tmp_path):
    write_run(tmp_path / "a", seed=3, steps=5)
    for path in (tmp_path / "a", tmp_path / "a" / "records.jsonl"):
        (run,) = read_runs([path])
        assert run.setting("method") == "gac" and run.setting("learning_rate") == "0.001"
        assert run.number("seed") == 3.0 and run.number("method") is None
        assert run.steps.tolist() == [1, 2, 3, 4, 5]
        assert run.lags == {4: 240, 3: 80}
        assert sum(run.regimes.values()) == 5 and run.regimes["first"] == 1
        assert np.isnan(run.series["cosine_raw"]).tolist() == [True] + [False] * 4
        assert (run.no_numbers, run.torn) == (0, 0)


def test_torn_lines_are_counted_and_the_rest_is_read(tmp_path):
    path = write_run(tmp_path, steps=4) / "records.jsonl"
    lines = path.read_text().splitlines()
    lines[2] = lines[2][:40]
    lines += ["[1, 2]", "", '{"kind": "rl-step", "fie']
    path.write_bytes("\n".join(lines).encode() + b"\xff")
    (run,) = read_runs([path])
    assert run.steps.tolist() == [1, 3, 4] and run.torn == 3


def test_missing_fields_and_what_is_no_number_are_unknown(tmp_path):
    log = RecordLog(tmp_path / "records.jsonl")
    log.append("rl-run", method=None)
    log.append("rl-step", step=1)
    odd = {"reward": math.nan, "kl": math.inf, "entropy": "high", "tokens": True, "lags": [1]}
    log.append("rl-step", step=2, regime=2, **odd)
    log.append("rl-step", step=3, reward=0.5, regime=9, lags={"x": 1, "2": None, "3": 4})
    log.append("rl-step", reward=1.0)
    (run,) = read_runs([tmp_path])
    assert run.steps.tolist() == [1, 2, 3] and run.setting("method") == ""
    assert np.isnan(run.series["reward"]).tolist() == [True, True, False]
    for name in ("kl", "entropy", "tokens", "seconds"):
        assert np.isnan(run.series[name]).all()
    assert run.no_numbers == 1 and run.lags == {3: 4.0}
    assert run.regimes == {"project": 1, "9": 1}
    assert run.torn == 1  # the step without a number


def test_a_run_that_was_resumed_is_one_and_its_repeated_steps_count_once(tmp_path):
    write_run(tmp_path, rewards=[0.1, 0.2, 0.3])
    write_run(tmp_path, rewards=[0.5])  # the same settings, the same file
    (run,) = read_runs([tmp_path])
    assert run.series["reward"].tolist() == [0.5, 0.2, 0.3]


def test_a_file_may_hold_several_runs(tmp_path):
    write_run(tmp_path, seed=0, rewards=[0.1])
    write_run(tmp_path, seed=1, rewards=[0.2, 0.3])
    runs = read_runs([tmp_path])
    assert [(run.setting("seed"), len(run.steps)) for run in runs] == [("0", 1), ("1", 2)]


def test_a_run_without_steps_is_a_run(tmp_path):
    (run,) = read_runs([write_run(tmp_path, steps=0)])
    assert len(run.steps) == 0 and run.series["reward"].shape == (0,)


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("", "nothing"),
        ("hello\nworld\n", "2 lines that are no records"),
        ('{"kind": "step", "fields": {}, "time_s": 1.0}\n', "1 of kind 'step'"),
        ('{"kind": "rl-step", "fields": {"step": 1}, "time_s": 1.0}\n', "1 of kind 'rl-step'"),
    ],
)
def test_files_that_hold_no_run_are_named_with_what_they_hold(tmp_path, text, got):
    path = tmp_path / "other.jsonl"
    path.write_text(text)
    with pytest.raises(FileError, match="records of a run") as caught:
        read_runs([path])
    assert str(path) in caught.value.got and got in caught.value.got


def test_missing_files_no_files_and_files_twice_are_refused(tmp_path):
    with pytest.raises(FileError, match=r"records\.jsonl: No such file"):
        read_runs([tmp_path])
    with pytest.raises(InputError, match="at least one file"):
        read_runs([])
    folder = write_run(tmp_path / "a")
    with pytest.raises(InputError, match="more than once"):
        read_runs([folder, folder / "records.jsonl"])


def test_fields_are_those_that_engines_write():
    names = {name for name, value in fields_of(2, 0.5).items() if isinstance(value, int | float)}
    from weft.report.rl_runs import FIELDS

    assert names - {"step"} == set(FIELDS) - {"fresh_reward"}
