import json
import re
from pathlib import Path

import pytest

from weft.cli.main import main
from weft.core.records import read_records


@pytest.fixture
def plan(recipe, single, tmp_path, capsys):
    """A plan for one device: it runs without torchrun."""
    path = tmp_path / "plan.json"
    assert main(["plan", recipe, "--machine", single, "-o", str(path)]) == 0
    capsys.readouterr()
    return str(path)


def losses(out):
    return [step["loss"] for step in json.loads(out)["steps"]]


def test_each_step_is_told_and_recorded(recipe, plan, tmp_path, capsys):
    records = tmp_path / "run.jsonl"
    arguments = ["run", recipe, "--plan", plan, "--steps", "3", "--records", str(records)]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert [line.split()[:2] for line in out.splitlines()[:3]] == [
        ["step", "0"],
        ["step", "1"],
        ["step", "2"],
    ]
    assert len(list(read_records(records, "step"))) == 3


def test_a_run_that_goes_on_has_the_losses_of_one_that_did_not_stop(recipe, plan, tmp_path, capsys):
    start = ["run", recipe, "--plan", plan, "--json", "--steps"]
    assert main([*start, "4"]) == 0
    whole = losses(capsys.readouterr().out)
    keep = ["--checkpoint", str(tmp_path / "kept"), "--checkpoint-every", "2"]
    assert main([*start, "2", *keep]) == 0
    first = losses(capsys.readouterr().out)
    assert main([*start, "4", *keep, "--resume"]) == 0
    second = losses(capsys.readouterr().out)
    assert len(first) == len(second) == 2
    assert first + second == whole


def test_a_second_run_in_a_folder_says_how_to_go_on(recipe, plan, tmp_path, capsys):
    run = ["run", recipe, "--plan", plan, "--steps", "1", "--checkpoint", str(tmp_path / "kept")]
    assert main(run) == 0
    assert main(run) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*run, "--resume"]) == 0
    assert "the checkpoint has 1 steps" in capsys.readouterr().out


def test_no_steps_without_a_checkpoint_are_not_blamed_on_one(recipe, plan, capsys):
    assert main(["run", recipe, "--plan", plan, "--steps", "0"]) == 0
    assert "checkpoint" not in capsys.readouterr().out


def test_a_plan_for_another_program_names_both_digests(recipe, plan, capsys):
    assert main(["run", recipe.replace(":line", ":other"), "--plan", plan]) == 2
    err = capsys.readouterr().err
    assert "made for something else" in err
    assert len(set(re.findall(r"\b[0-9a-f]{16}\b", err))) == 2


def test_a_plan_for_more_devices_than_ranks_says_how_to_start_it(recipe, pair, tmp_path, capsys):
    path = tmp_path / "plan2.json"
    assert main(["plan", recipe, "--machine", pair, "-o", str(path)]) == 0
    assert main(["run", recipe, "--plan", str(path)]) == 2
    assert "--nproc-per-node 2" in capsys.readouterr().err


def test_resuming_needs_a_folder(recipe, plan, capsys):
    assert main(["run", recipe, "--plan", plan, "--resume"]) == 2
    assert "--checkpoint" in capsys.readouterr().err


def test_a_missing_plan_is_named(recipe, tmp_path, capsys):
    assert main(["run", recipe, "--plan", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


def test_a_page_shows_what_the_run_measured(recipe, plan, tmp_path, capsys):
    records, page = tmp_path / "run.jsonl", tmp_path / "plan.html"
    arguments = ["--steps", "4", "--records", str(records)]
    assert main(["run", recipe, "--plan", plan, *arguments]) == 0
    assert main(["show", plan, "--records", str(records), "--html", str(page)]) == 0
    text = page.read_text()
    assert "the median of 3 measured steps" in text
    assert str(records) in text


def test_a_state_that_every_rank_builds_whole_is_said(recipe, plan, capsys):
    path = Path(recipe.partition(":")[0])
    odd = "lambda: [float(torch.rand(())), nn.Sequential("
    text = path.read_text().replace("lambda: nn.Sequential(", odd, 1)
    path.write_text(text.replace("nn.Linear(16, 4)),", "nn.Linear(16, 4))][1],"))
    assert main(["run", recipe, "--plan", plan, "--steps", "1"]) == 0
    out = capsys.readouterr().out
    assert "each rank built the whole first state" in out
    assert "reads random values" in out
