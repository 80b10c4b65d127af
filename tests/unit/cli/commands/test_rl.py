"""`weft rl`: runs trained and compared."""

import json
import os
import signal

import pytest

from tests.unit.rl import small
from weft.cli.main import main

RECIPE = f"{small.__file__}:small"


def train(*arguments, recipe=RECIPE):
    return main(["rl", "train", recipe, "--steps", "3", *map(str, arguments)])


def test_a_run_is_told_in_lines(tmp_path, capsys):
    assert train("-o", tmp_path / "run", "--staleness", 2, "--gac") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step     1  reward  0.")
    assert lines[-1].startswith("done: 3 steps, reward 0.")
    assert str(tmp_path / "run") in lines[-1]


def test_json_is_one_line(tmp_path, capsys):
    assert train("-o", tmp_path / "run", "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["steps"] == 3


def test_the_folder_is_named_after_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train("--staleness", 1, "--compensation", 5, "--seed", 2) == 0
    assert (tmp_path / "runs" / "small-truncated+dc+kl-s1-local-seed2" / "summary.json").exists()


def test_a_file_alone_names_the_function_that_is_called_like_it(tmp_path, capsys):
    assert train("-o", tmp_path / "run", recipe=small.__file__) == 0


def test_resuming_goes_on(tmp_path, capsys):
    assert train("-o", tmp_path) == 0
    assert train("-o", tmp_path) == 2
    assert "--resume goes on with it" in capsys.readouterr().err
    assert train("-o", tmp_path, "--resume") == 0
    assert "nothing left to do: 3 steps" in capsys.readouterr().out


def test_an_interrupt_stops_in_order(tmp_path, capsys, monkeypatch):
    from weft.rl.learner import Learner

    update = Learner.update

    def interrupted(self, rollouts):
        os.kill(os.getpid(), signal.SIGINT)
        return update(self, rollouts)

    monkeypatch.setattr(Learner, "update", interrupted)
    # As in a terminal, also where tests run in workers that take no notice of Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert train("-o", tmp_path) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    told = capsys.readouterr()
    assert "stopped early, --resume goes on: 1 steps" in told.out and "stopped." in told.err
    assert (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        ("--staleness", "-1"),
        ("--steps", "0"),
        ("--lr", "0"),
        ("--lr", "nan"),
        ("--kl", "-0.1"),
        ("--compensation", "much"),
        ("--correction", "hope"),
        ("--engine", "steam"),
        ("--workers", "0"),
        ("--token-budget", "0"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, wrong, capsys):
    assert train("-o", tmp_path / "run", *wrong) == 2
    assert "need" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert train("-o", tmp_path / "file" / "run") == 2
    assert "a folder for the run" in capsys.readouterr().err


def test_a_bug_of_the_recipe_is_told_as_one(tmp_path, capsys):
    assert train("-o", tmp_path / "run", recipe=f"{small.__file__}:wrong") == 1
    assert "no such digit" in capsys.readouterr().err


def test_runs_are_compared_on_a_page(tmp_path, capsys):
    for seed in (0, 1):
        assert train("-o", tmp_path / str(seed), "--seed", seed) == 0
    page = tmp_path / "page.html"
    assert main(["rl", "compare", str(tmp_path / "0"), str(tmp_path / "1"), "-o", str(page)]) == 0
    assert "small" in page.read_text()


def test_comparing_nothing_is_refused(tmp_path, capsys):
    assert main(["rl", "compare", str(tmp_path), "-o", str(tmp_path / "page.html")]) == 2


def test_what_trl_does_not_take_is_refused(tmp_path, capsys):
    wrong = ("--engine", "trl", "--correction", "m2po", "--kl", "0.1")
    assert train("-o", tmp_path, *wrong) == 2
    assert "--correction, --kl" in capsys.readouterr().err
