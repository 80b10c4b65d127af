import json

import pytest

from weft.cli.main import main
from weft.parallel.serialize import load_plan


@pytest.fixture
def plan(recipe, pair, tmp_path, capsys):
    """A plan file, as the command writes it, and what it printed."""
    path = tmp_path / "plan.json"
    assert main(["plan", recipe, "--machine", pair, "-o", str(path)]) == 0
    return path, capsys.readouterr().out


def test_a_plan_is_explained_and_written(plan):
    path, out = plan
    assert out.startswith("line on box2")
    assert "to capture" in out
    assert load_plan(path).mesh.num_devices == 2


def test_json_says_what_the_file_predicts(recipe, pair, plan, capsys):
    path, _ = plan
    assert main(["plan", recipe, "--machine", pair, "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["step_s"] == pytest.approx(load_plan(path).prediction.step_s)
    assert plain["level"] == "fast"


def test_showing_a_plan_writes_a_page_and_a_trace(plan, tmp_path, capsys):
    page, trace = tmp_path / "plan.html", tmp_path / "plan.trace.json"
    arguments = ["show", str(plan[0]), "--html", str(page), "--trace", str(trace)]
    assert main(arguments) == 0
    assert page.read_text().startswith("<!doctype html>")
    assert json.loads(trace.read_text())["traceEvents"]
    assert "line on box2" in capsys.readouterr().out


def test_a_damaged_plan_file_is_an_error_in_three_parts(plan, capsys):
    path = plan[0]
    path.write_text(path.read_text().replace('"mesh":[2]', '"mesh":[4]'))
    assert main(["show", str(path)]) == 2
    err = capsys.readouterr().err
    assert "checksum" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("content", ["", "{}", "[1, 2]", "not json", '{"weft_plan": 99}'])
def test_a_file_that_is_no_plan_is_an_error_that_names_it(content, tmp_path, capsys):
    path = tmp_path / "x.json"
    path.write_text(content)
    assert main(["show", str(path)]) == 2
    assert "x.json" in capsys.readouterr().err


def test_a_plan_for_another_recipe_names_both_digests(plan, recipe, capsys):
    path = plan[0]
    other = recipe.replace(":line", ":other")
    assert main(["show", str(path), "--recipe", other]) == 2
    err = capsys.readouterr().err
    assert load_plan(path).program_digest in err
    assert "plan again: a change of model" in err


def test_too_little_memory_is_an_error_with_what_would_do(recipe, pair, capsys):
    wide = recipe.replace(":line", ":wide")
    assert main(["plan", wide, "--machine", pair, "--memory", "2MiB"]) == 2
    err = capsys.readouterr().err
    assert "no plan fits" in err
    assert "2.0 MiB" in err
    assert "  try   " in err


@pytest.mark.parametrize("size", ["lots", "-3GiB"])
def test_a_memory_size_that_cannot_be_read_is_quoted(size, recipe, pair, capsys):
    assert main(["plan", recipe, "--machine", pair, f"--memory={size}"]) == 2
    assert size in capsys.readouterr().err


@pytest.mark.parametrize("size", ["0", "0.2B", "1e-5", "100B", "2097151"])
def test_memory_that_nothing_runs_in_is_refused_and_not_taken_for_all(size, recipe, pair, capsys):
    assert main(["plan", recipe, "--machine", pair, f"--memory={size}"]) == 2
    err = capsys.readouterr().err
    assert "at least 2.0 MiB" in err
    assert f"--memory {size}" in err


def test_more_memory_than_a_device_has_is_refused(recipe, pair, capsys):
    assert main(["plan", recipe, "--machine", pair, "--memory", "5PiB"]) == 2
    err = capsys.readouterr().err
    assert "the smallest device of box2" in err


@pytest.mark.parametrize("where", ["missing/plan.json", "."])
def test_a_plan_that_has_no_place_is_refused_before_anything_is_planned(
    where, recipe, pair, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(
        "weft.cli.commands.plan.plan_model", lambda *_, **__: pytest.fail("planned")
    )
    arguments = ["plan", recipe, "--machine", pair, "-o", str(tmp_path / where)]
    assert main(arguments) == 2
    assert "a place to write" in capsys.readouterr().err


def test_pins_are_kept_and_named(recipe, pair, tmp_path, capsys):
    path = tmp_path / "pinned.json"
    arguments = ["plan", recipe, "--machine", pair, "-o", str(path)]
    assert main([*arguments, "--pin", "0.weight=S(1)x2", "--pin", "2 output=R"]) == 0
    out = capsys.readouterr().out
    assert "kept 0.weight=S(1)x2 (1 tensor)" in out
    assert "kept 2 output=R (1 tensor)" in out
    assert load_plan(path).strategies[0].outputs == ((1,),)


@pytest.mark.parametrize(
    ("pin", "words"),
    [
        ("0.weight", "PATH.TENSOR=PLACEMENT"),
        ("0.wieght=R", "did you mean 0.weight"),
        ("0.weight=S(0)x3", "a plan that keeps 0.weight=S(0)x3"),
        ("0=stage 1", "an operator for each of 2 stages"),
    ],
)
def test_a_pin_that_cannot_be_kept_is_an_error_in_three_parts(pin, words, recipe, pair, capsys):
    assert main(["plan", recipe, "--machine", pair, "--pin", pin]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert "  try   " in err


def test_a_search_by_the_agent_is_kept_and_gone_on_with(recipe, pair, tmp_path, capsys):
    file = tmp_path / "search"
    command = ["plan", recipe, "--machine", pair, "--planner", "dqn", "--resume", str(file)]
    for episodes in ("3", "6"):
        assert main([*command, "--episodes", episodes, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["planner"] == "dqn"
        assert file.is_file()


def test_a_plan_to_begin_with_has_to_be_for_the_same_recipe(plan, recipe, pair, capsys):
    other = recipe.replace(":line", ":other")
    command = ["plan", other, "--machine", pair, "--planner", "dqn", "--warm-start", str(plan[0])]
    assert main(command) == 2
    assert "a plan of other to begin with" in capsys.readouterr().err.replace("line", "other")


def test_options_of_the_agent_need_the_agent(recipe, pair, capsys):
    assert main(["plan", recipe, "--machine", pair, "--episodes", "3"]) == 2
    assert "--planner dqn" in capsys.readouterr().err
