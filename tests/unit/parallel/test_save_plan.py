import pytest

from tests.unit.report import toy_plan
from weft.core.errors import FileError
from weft.parallel.serialize import load_plan, save_plan


def test_paths_may_be_text(tmp_path):
    plan = toy_plan.plan()
    save_plan(plan, str(tmp_path / "plan.json"))
    assert load_plan(str(tmp_path / "plan.json")) == plan


def test_a_plan_that_cannot_be_written_is_an_error_that_names_the_file(tmp_path):
    with pytest.raises(FileError) as raised:
        save_plan(toy_plan.plan(), tmp_path / "missing" / "plan.json")
    assert "plan.json" in str(raised.value)
