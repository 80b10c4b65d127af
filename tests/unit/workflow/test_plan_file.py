import json

import pytest

from tests.unit.report import toy_plan
from tests.unit.report.test_pipeline_page import plan as toy_pipeline
from weft.core.errors import FileError, MismatchError
from weft.parallel.serialize import load_plan, save_plan
from weft.workflow.plan_file import open_pipeline, open_planned, save_pipeline, save_planned
from weft.workflow.planned import Planned


@pytest.fixture
def planned():
    program, _ = toy_plan.draft()
    return Planned(plan=toy_plan.plan(), program=program, machine=toy_plan.machine())


@pytest.fixture
def path(planned, tmp_path):
    path = tmp_path / "plan.json"
    save_planned(planned, path)
    return path


def damage(path, key, value):
    outer = json.loads(path.read_text())
    outer["basis"][key] = value
    path.write_text(json.dumps(outer))


def test_a_plan_comes_back_with_its_program_and_machine(planned, path):
    back = open_planned(path)
    assert back.plan == planned.plan
    assert back.program.nodes == planned.program.nodes
    assert back.machine == planned.machine


def test_readers_of_plans_alone_can_read_the_file(planned, path):
    assert load_plan(path) == planned.plan


def test_a_file_with_the_decision_alone_says_what_is_missing(planned, path):
    save_plan(planned.plan, path)
    with pytest.raises(FileError, match="--recipe and --machine"):
        open_planned(path)
    back = open_planned(path, program=planned.program, machine=planned.machine)
    assert back.plan == planned.plan


@pytest.mark.parametrize("value", ["not base64!", "AAAA", None, 7])
def test_a_damaged_basis_is_an_error_that_names_the_file(path, value):
    damage(path, "program", value)
    with pytest.raises(FileError, match=r"plan\.json"):
        open_planned(path)


def test_a_basis_of_another_program_is_found_by_its_digest(planned, path):
    other = json.loads(path.read_text())["basis"]["program"]
    program, _ = toy_plan.draft()
    changed = toy_plan.changed(program)
    save_planned(Planned(plan=planned.plan, program=changed, machine=planned.machine), path)
    assert json.loads(path.read_text())["basis"]["program"] != other
    with pytest.raises(MismatchError) as caught:
        open_planned(path)
    assert planned.plan.program_digest in caught.value.need
    assert changed.digest in caught.value.got


def test_another_machine_is_found_by_its_digest(path):
    from weft.machine import load_machine

    with pytest.raises(MismatchError, match="toy-box"):
        open_planned(path, machine=load_machine("dgx-h100x1"))


def test_a_folder_that_does_not_exist_is_named(planned, tmp_path):
    with pytest.raises(FileError, match="nowhere"):
        save_planned(planned, tmp_path / "nowhere" / "plan.json")


def test_writing_leaves_no_partial_file(path):
    assert [p.name for p in path.parent.iterdir()] == ["plan.json"]


@pytest.fixture
def pipeline(tmp_path):
    plan = toy_pipeline()
    save_pipeline(plan, tmp_path / "pipeline.json")
    return tmp_path / "pipeline.json"


def test_a_pipeline_is_refused_on_another_machine_and_for_another_program(pipeline):
    plan = open_pipeline(pipeline)
    assert plan == toy_pipeline()
    with pytest.raises(MismatchError) as caught:
        open_pipeline(pipeline, machine=toy_plan.machine)
    assert plan.machine_digest in caught.value.need
    assert toy_plan.machine().digest in caught.value.got
    with pytest.raises(MismatchError) as caught:
        open_pipeline(pipeline, program=lambda: toy_plan.draft()[0])
    assert plan.program_digest in caught.value.need


def test_for_a_plan_of_one_stage_nothing_is_looked_up(path):
    def never():
        raise AssertionError

    assert open_pipeline(path, program=never, machine=never) is None
