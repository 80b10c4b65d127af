"""Showing a pipeline: what was measured is drawn, and what it is not for is refused."""

from __future__ import annotations

import json
import re

import pytest

from weft.cli.main import main
from weft.machine import load_machine
from weft.parallel.pipeline.expert import pipeline_expert
from weft.parallel.plan_files import save_plan
from weft.workflow.capture_recipe import capture_recipe


@pytest.fixture
def pipeline(recipe, single, tmp_path):
    """Two stages on one rank: they run without torchrun."""
    program = capture_recipe(recipe).program
    plan = pipeline_expert(
        program,
        load_machine(single),
        pp=1,
        chunks=2,
        micro_batches=2,
        schedule="interleaved",
    )
    path = tmp_path / "pipeline.json"
    save_plan(plan, path)
    return str(path)


def run(recipe, pipeline, tmp_path):
    records = str(tmp_path / "run.jsonl")
    arguments = ["--plan", pipeline, "--steps", "3", "--records", records]
    assert main(["run", recipe, *arguments]) == 0
    return records


def test_ranks_are_shown_beside_their_prediction(recipe, pipeline, tmp_path, capsys):
    records, page = run(recipe, pipeline, tmp_path), tmp_path / "page.html"
    capsys.readouterr()
    assert main(["show", pipeline, "--records", records, "--html", str(page)]) == 0
    assert "exposed" in capsys.readouterr().out
    text = page.read_text()
    assert "the median of 2 measured steps" in text
    assert "rank 0 waits" in text
    assert records in text


def test_figures_of_ranks_are_in_the_json(recipe, pipeline, tmp_path, capsys):
    records = run(recipe, pipeline, tmp_path)
    capsys.readouterr()
    assert main(["show", pipeline, "--records", records, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["measured_steps_s"]) == 2
    assert [rank["stages"] for rank in found["ranks"]] == [[0, 1]]


def test_a_run_that_did_not_end_is_said(recipe, pipeline, tmp_path, capsys):
    records = run(recipe, pipeline, tmp_path)
    lines = (tmp_path / "run.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run.jsonl").write_text("".join(x for x in lines if '"kind":"rank"' not in x))
    capsys.readouterr()
    assert main(["show", pipeline, "--records", records]) == 0
    assert "no run of it that ended" in capsys.readouterr().out


def test_records_of_another_plan_are_refused(recipe, single, pipeline, tmp_path, capsys):
    other, records = str(tmp_path / "plan.json"), str(tmp_path / "run.jsonl")
    assert main(["plan", recipe, "--machine", single, "-o", other]) == 0
    assert main(["run", recipe, "--plan", other, "--steps", "1", "--records", records]) == 0
    assert main(["show", pipeline, "--records", records]) == 2
    assert len(set(re.findall(r"plan ([0-9a-f]{16})\b", capsys.readouterr().err))) == 2


def test_its_own_recipe_and_machine_are_taken(recipe, single, pipeline):
    assert main(["show", pipeline, "--recipe", recipe, "--machine", single]) == 0


@pytest.mark.parametrize("kind", ["stage", "pipeline"])
def test_another_machine_is_refused_for_plans_of_both_kinds(
    recipe, single, pair, pipeline, tmp_path, capsys, kind
):
    path = pipeline
    if kind == "stage":
        path = str(tmp_path / "plan.json")
        assert main(["plan", recipe, "--machine", single, "-o", path]) == 0
    capsys.readouterr()
    assert main(["show", path, "--machine", pair]) == 2
    err = capsys.readouterr().err
    assert "the machine the plan was made for: box1" in err
    assert "box2" in err


def test_another_recipe_is_refused(recipe, pipeline, capsys):
    assert main(["show", pipeline, "--recipe", recipe.replace(":line", ":other")]) == 2
    assert "the program the plan was made for" in capsys.readouterr().err
