"""Plan files: what is written reads back, and what is damaged is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.programs import mlp
from weft.core.digest import digest
from weft.core.errors import FileError
from weft.machine.presets import preset
from weft.parallel.plan import Copy, Hop, ParallelPlan
from weft.parallel.planning import plan
from weft.parallel.serialize import load_plan, plan_digest, plan_from_json, plan_to_json, save_plan
from weft.program.graph import Phase, Value


@pytest.fixture(scope="module")
def some_plan() -> ParallelPlan:
    program = mlp(num_layers=1, batch=64, width=64, slots=("m",))
    found = plan(program, preset("dgx-h100x1"), mesh=(2, 4), memory_limit_bytes=200_000)
    # Whatever the planner needs, the file is to hold every kind of field.
    copy = Copy(Value(0, 0), Phase.FORWARD, (0, -1), (0, -2), (Hop(1, -2),), kept=True)
    return replace(found, copies=(*found.copies, copy), recompute=(1,), notes=("a note",))


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


def sealed(plain: object) -> str:
    """A plan file of any content with the checksum that belongs to it."""
    return json.dumps({"weft_plan": 1, "checksum": digest(plain), "plan": plain})


def content(some_plan: ParallelPlan) -> dict[str, Any]:
    return json.loads(plan_to_json(some_plan))["plan"]


HUGE = 10**400

WRONG: list[tuple[tuple[str | int, ...], object]] = [
    *((("mesh",), value) for value in ([2.0, 4], [True, 4], [], [0, 4], [-2, 4], ["2"], 8, None)),
    *((("memory_limit_bytes",), value) for value in ("abc", None, HUGE, -1, True, [1])),
    *((("recompute",), value) for value in ([99999], ["a"], [1.5], [-1], [0, 0], [True], {}, 3)),
    *((("choice", 1), value) for value in ("0", 0.7, -1, 99999, None, True)),
    *((("prediction", "step_s"), value) for value in (0, -1.0, "1", None, True, HUGE)),
    *((("prediction", "peak_bytes"), value) for value in (-1, "1", [])),
    *((("prediction",), value) for value in ([], {}, None, 3)),
    *((("notes",), value) for value in ([1], "note", None, {})),
    *((("strategies", 0), value) for value in (3, [1, 2], [[], []], [["R,R"]], ["R,R", []])),
    *(
        (("strategies", 0, 0, 0), value)
        for value in ("S-1,R", "S 0,R", "S0", "R,R,R", "", "S00,R", "S1_0,R", "S\u0661,R", "Q,R", 3)
    ),
    *((("program",), value) for value in ([], ["a"], ["a", 3], "ab", None)),
    (("program_digest",), "another"),
    (("machine", 1), 7),
    *((("level",), value) for value in ("slow", None, 3, ["fast"])),
    *((("planner",), value) for value in (None, 3)),
    *((("search_s",), value) for value in (-1, "x", None)),
    *((("alternatives", 0, "fits"), value) for value in (1, None, "yes")),
    *((("alternatives", 0, "step_s"), value) for value in (None, -1, "1")),
    *((("copies", 0), value) for value in (None, [], [1, 2, 3, 4, 5])),
    *((("copies", 0, 0), value) for value in ([0], [99999, 0], [0, 9], [0.0, 0], [-1, 0], None)),
    *((("copies", 0, 1), value) for value in ("never", None, 3, [])),
    *((("copies", 0, 2), value) for value in ("R", "S-1,R", None)),
    *((("copies", 0, 3), value) for value in ([[9, "R"]], [[0, "R,R"]], [[True, "R"]], 3, [3])),
    *((("copies", 0, 4), value) for value in (2, "1", True, None)),
    (("surplus",), 1),
    (("prediction", "surplus"), 1.0),
    (("alternatives", 0, "surplus"), 1),
]


@pytest.mark.parametrize(("path", "value"), WRONG)
def test_a_wrong_field_under_a_right_checksum_is_named(
    some_plan: ParallelPlan, path: tuple[str | int, ...], value: object
) -> None:
    plain = content(some_plan)
    assert plan_from_json(sealed(plain)) == some_plan
    inner: Any = plain
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(FileError) as caught:
        plan_from_json(sealed(plain))
    assert caught.value.hint
    assert len(str(caught.value)) < 600
    assert str(path[0]) in str(caught.value)


@pytest.mark.parametrize(
    "key", ["mesh", "strategies", "choice", "copies", "recompute", "prediction", "notes"]
)
def test_a_missing_field_is_named(some_plan: ParallelPlan, key: str) -> None:
    plain = content(some_plan)
    del plain[key]
    with pytest.raises(FileError, match=rf"missing: \['{key}'\]"):
        plan_from_json(sealed(plain))


def test_one_strategy_for_all_nodes_is_not_what_was_written(some_plan: ParallelPlan) -> None:
    plain = content(some_plan)
    plain["choice"] = [0] * len(plain["choice"])
    with pytest.raises(FileError, match="choice: all of 0 to"):
        plan_from_json(sealed(plain))


@pytest.mark.parametrize("plain", [None, [], "plan", 3, {}])
def test_content_that_is_no_plan_is_refused(plain: object) -> None:
    with pytest.raises(FileError, match="plan:"):
        plan_from_json(sealed(plain))


@pytest.mark.parametrize("value", ["[" * 100_000, "[" * 100_000 + "]" * 100_000, "NaN", "1e999"])
def test_content_that_cannot_be_digested_is_refused(value: str) -> None:
    with pytest.raises(FileError) as caught:
        plan_from_json(f'{{"weft_plan": 1, "checksum": "", "plan": {value}}}')
    assert caught.value.hint


@pytest.mark.parametrize("version", ["true", "1.0", '"1"', "null", "[]"])
def test_the_version_is_a_whole_number(version: str) -> None:
    with pytest.raises(FileError, match="format"):
        plan_from_json(f'{{"weft_plan": {version}}}')


@pytest.mark.parametrize("path", [None, 3, "a\0b", ".", "/dev/full"])
def test_a_place_that_takes_no_plan_is_an_error_in_three_parts(
    some_plan: ParallelPlan, path: Any
) -> None:
    with pytest.raises(FileError) as caught:
        save_plan(some_plan, path)
    assert caught.value.hint


@pytest.mark.parametrize("path", [None, 3, "a\0b", "."])
def test_what_is_no_path_holds_no_plan(path: Any) -> None:
    with pytest.raises(FileError) as caught:
        load_plan(path)
    assert caught.value.hint


def test_devices_and_links_stay_where_a_plan_is_written(
    some_plan: ParallelPlan, tmp_path: Path
) -> None:
    save_plan(some_plan, "/dev/null")
    assert Path("/dev/null").is_char_device()
    (tmp_path / "link.json").symlink_to(tmp_path / "plan.json")
    save_plan(some_plan, tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert load_plan(tmp_path / "plan.json") == some_plan
