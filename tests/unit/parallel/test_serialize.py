"""Plan files: what is written reads back, and what is damaged is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.programs import mlp
from weft.core.errors import FileError
from weft.machine.presets import preset
from weft.parallel.plan import ParallelPlan
from weft.parallel.planning import plan
from weft.parallel.serialize import load_plan, plan_digest, plan_from_json, plan_to_json, save_plan


@pytest.fixture(scope="module")
def some_plan() -> ParallelPlan:
    program = mlp(num_layers=1, batch=64, width=64, slots=("m",))
    return plan(program, preset("dgx-h100x1"), mesh=(2, 4), memory_limit_bytes=200_000)


def test_a_plan_reads_back_equal(some_plan: ParallelPlan, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    save_plan(some_plan, path)
    assert load_plan(path) == some_plan
    assert plan_digest(load_plan(path)) == plan_digest(some_plan)
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_saving_again_replaces_the_file(some_plan: ParallelPlan, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text("old")
    save_plan(some_plan, path)
    assert load_plan(path) == some_plan


def test_a_file_cut_short_anywhere_is_refused(some_plan: ParallelPlan) -> None:
    text = plan_to_json(some_plan)
    for length in range(0, len(text), max(1, len(text) // 50)):
        with pytest.raises(FileError):
            plan_from_json(text[:length])


def test_a_changed_figure_is_noticed(some_plan: ParallelPlan) -> None:
    outer = json.loads(plan_to_json(some_plan))
    outer["plan"]["mesh"] = [4, 2]
    with pytest.raises(FileError, match="checksum"):
        plan_from_json(json.dumps(outer))


def test_a_newer_format_is_refused_by_number(some_plan: ParallelPlan) -> None:
    outer = json.loads(plan_to_json(some_plan)) | {"weft_plan": 99}
    with pytest.raises(FileError, match="format 99"):
        plan_from_json(json.dumps(outer))


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"weft_plan": 1}', "\x00\x01"])
def test_other_files_are_refused(text: str) -> None:
    with pytest.raises(FileError):
        plan_from_json(text)


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "nothing.json"
    with pytest.raises(FileError, match=r"nothing\.json"):
        load_plan(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match=r"nothing\.json"):
        load_plan(path)
