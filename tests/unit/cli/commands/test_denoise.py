"""`weft denoise`: profiles made, shown and drawn."""

import json

import pytest

from tests.unit.diffusion.known import a_profile
from weft.cli.main import main
from weft.core.errors import InfeasibleError
from weft.diffusion import DenoisePlan, Mode, StepPlan, load_profile, save_plan, save_profile
from weft.diffusion.calibration import SPEEDUPS
from weft.diffusion.search import STYLES

RECIPE = """
from benchmarks.denoise_matrix.pipelines import PIPELINES, noise


def pipe():
    run = PIPELINES["Wan 2.1"].build(6)
    return run.pipe, [{**run.inputs, "generator": noise(seed)} for seed in (1, 2)]


def alone():
    return pipe()[0]


def number():
    return 3


def texts():
    return pipe()[0], ["a cat"]
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "films.py"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def profile(tmp_path):
    path = tmp_path / "known.json"
    save_profile(a_profile(steps=6), path)
    return path


def quick(monkeypatch):
    """Plans that take long to find are not what is tested here."""
    from weft.diffusion.profile import Profile

    def plan(self, **_):
        steps = self.recordings[0].num_steps
        if steps != 6:
            raise InfeasibleError(need="six steps", got=str(steps))
        own = tuple(StepPlan(mode=Mode.STEP) if n == 4 else StepPlan() for n in range(6))
        return DenoisePlan(steps=own, speedup=1.2, psnr_db=30.0)

    monkeypatch.setattr(Profile, "plan", plan)


def test_a_recipes_pipeline_is_calibrated(recipe, tmp_path, monkeypatch, capsys):
    quick(monkeypatch)
    out = tmp_path / "profile.json"
    command = ["denoise", "calibrate", f"{recipe}:pipe", "-o", str(out)]
    assert main([*command, "--prompts", "1", "--probes", "1"]) == 0
    told = capsys.readouterr()
    made = load_profile(out)
    assert len(made.recordings) == 1 and made.holds_for.guidance == 5.0
    assert [f.steps for f in made.fewer_steps] == [4, 3, 2, 1]
    assert len(made.checks) == len(SPEEDUPS) * len(STYLES)
    assert {check.style for check in made.checks} == set(STYLES)
    assert "torch" in made.provenance
    assert "WanPipeline" in told.out and "3 steps in full" in told.out
    assert "weft: full runs 0 %" in told.err and "weft: checks 100 %" in told.err
    assert sorted(p.name for p in tmp_path.glob("*.json*")) == ["profile.json"]


@pytest.mark.parametrize(
    ("function", "more", "word"),
    [
        ("number", [], "returned int"),
        ("texts", [], "returned (WanPipeline, list)"),
        ("alone", [], "no text encoder"),
        ("pipe", ["--prompts", "3"], "1 to 2 prompts"),
        ("pipe", ["--probes", "0"], "at least 1"),
        ("none", [], "alone, number, pipe, texts"),
    ],
)
def test_recipes_that_cannot_be_calibrated_say_why(recipe, function, more, word, tmp_path, capsys):
    out = tmp_path / "profile.json"
    command = ["denoise", "calibrate", f"{recipe}:{function}", "-o", str(out), *more]
    assert main(command) == 2
    err = capsys.readouterr().err
    assert word in err and "  try   " in err and not out.exists()


def test_a_profile_is_drawn_with_what_others_reach(profile, tmp_path, capsys):
    page = tmp_path / "pareto.html"
    command = ["denoise", "pareto", str(profile), "-o", str(page), "--json"]
    assert main([*command, "--point", "a=b cache=1.8,25.5"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["page"] == str(page) and told["sentence"].startswith("ToyPipeline at 2 times")
    assert "a=b cache" in page.read_text()


@pytest.mark.parametrize("point", ["cache", "cache=1.8", "=1,2", "cache=0,30", "cache=2,nan"])
def test_a_point_that_is_none_is_refused(profile, tmp_path, point, capsys):
    page = tmp_path / "pareto.html"
    command = ["denoise", "pareto", str(profile), "-o", str(page), "--point", point]
    assert main(command) == 2
    assert repr(point) in capsys.readouterr().err and not page.exists()


def test_profiles_and_plans_are_shown(profile, tmp_path, capsys):
    assert main(["denoise", "show", str(profile)]) == 0
    assert "4 steps in full" in capsys.readouterr().out
    plan = DenoisePlan(steps=(StepPlan(), StepPlan(mode=Mode.STEP)), policy="by hand")
    save_plan(plan, tmp_path / "plan.json")
    assert main(["denoise", "show", str(tmp_path / "plan.json")]) == 0
    assert "2 steps by hand: 1 full, 1 step" in capsys.readouterr().out


@pytest.mark.parametrize("before", [True, False])
def test_json_may_be_asked_for_before_the_action_and_after_it(profile, before, capsys):
    action = ["show", str(profile)]
    assert main(["denoise", "--json", *action] if before else ["denoise", *action, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["provenance"] == "a toy, 2026-01-01"


@pytest.mark.parametrize(
    "text", ["", "[]", '{"weft": "parallel plan"}', '{"weft": "denoise plan"}']
)
def test_files_that_hold_something_else_are_refused_by_name(text, tmp_path, capsys):
    path = tmp_path / "other.json"
    path.write_text(text)
    assert main(["denoise", "show", str(path)]) == 2
    assert "other.json" in capsys.readouterr().err
    assert main(["denoise", "pareto", str(path), "-o", str(tmp_path / "x.html")]) == 2
    assert "other.json" in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()
