import json
from dataclasses import replace

import pytest

from weft.cli.main import main
from weft.core.errors import FileError
from weft.machine import load_machine
from weft.workflow import demo


def test_the_demos_recipe_is_found_around_the_package():
    path, function = demo.find_demo_recipe().rsplit(":", 1)
    assert path.endswith("recipes/gpt.py")
    assert function == "gpt_demo"


def test_without_recipes_the_demo_says_where_to_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "a" / "b" / "c" / "d" / "demo.py"))
    with pytest.raises(FileError, match="checkout"):
        demo.find_demo_recipe()


@pytest.mark.dist
def test_two_ranks_follow_one_process_and_the_page_shows_it(
    recipe, pair, tmp_path, monkeypatch, capsys
):
    # Measuring this host takes a while and has its own tests; any two devices will do here.
    machine = load_machine(pair)
    monkeypatch.setattr(demo, "probe_host", lambda *_, **__: replace(machine, name="stand-in"))
    page, folder = tmp_path / "demo.html", tmp_path / "out"
    arguments = ["demo", "-o", str(page), "--folder", str(folder), "--recipe", recipe]
    assert main([*arguments, "--steps", "3", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["steps"] == 3
    assert plain["largest_relative_loss_difference"] < 1e-5
    assert plain["measured_step_s"] > 0
    assert sorted(p.name for p in folder.iterdir()) == [
        "machine.yaml",
        "plan.json",
        "records.jsonl",
    ]
    text = page.read_text()
    assert "follows one process" in text
    assert str(folder / "records.jsonl") in text


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--steps", "0"], "--steps 0"),
        (["--steps", "-3"], "--steps -3"),
        (["--recipe", "nope.py"], "nope.py"),
        (["--recipe", "nope.py:gpt"], "nope.py"),
        (["--folder", "/dev/null/x"], "/dev/null/x"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_measured(
    arguments, word, recipe, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "probe_host", lambda *_, **__: pytest.fail("measured"))
    assert main(["demo", *arguments]) == 2
    assert word in capsys.readouterr().err
