from dataclasses import replace

import pytest

from tests.unit.report import toy_plan
from weft.core.errors import FileError, MismatchError
from weft.core.records import RecordLog
from weft.parallel.serialize import plan_digest
from weft.workflow.measurements import read_measurements


@pytest.fixture
def plans():
    plan = toy_plan.plan()
    return plan, replace(plan, recompute=(1,))


@pytest.fixture
def path(plans, tmp_path):
    """A file with runs of the first plan, of the second, and of the first again."""
    path = tmp_path / "runs.jsonl"
    log = RecordLog(path)
    for run, plan in enumerate((plans[0], plans[1], plans[0])):
        log.append("run", program=plan.program_name, plan_digest=plan_digest(plan))
        log.append("step", step=run, step_s=1.0)
    return path


def test_steps_of_other_plans_are_left_out(plans, path):
    def steps(plan):
        return [r.fields["step"] for r in read_measurements(path, plan) if r.kind == "step"]

    assert steps(plans[0]) == [0, 2]
    assert steps(plans[1]) == [1]


def test_a_file_without_a_run_of_the_plan_names_both(plans, path):
    third = replace(plans[0], recompute=(1, 2))
    with pytest.raises(MismatchError) as caught:
        read_measurements(path, third)
    assert plan_digest(third) in caught.value.need
    assert plan_digest(plans[0]) in caught.value.got


def test_records_before_any_run_belong_to_none(plans, tmp_path):
    path = tmp_path / "runs.jsonl"
    RecordLog(path).append("step", step=0, step_s=1.0)
    with pytest.raises(MismatchError, match="no plan"):
        read_measurements(path, plans[0])


def test_a_missing_file_is_named(plans, tmp_path):
    with pytest.raises(FileError, match=r"none\.jsonl"):
        read_measurements(tmp_path / "none.jsonl", plans[0])
