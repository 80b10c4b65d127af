import ast
import re
from pathlib import Path

import pytest

import weft

NAMES = [
    "Adafactor",
    "AdamW",
    "Machine",
    "ParallelPlan",
    "Program",
    "SGD",
    "WeftError",
    "Workload",
    "capture",
    "deploy",
    "expert_plan",
    "explain",
    "load_machine",
    "load_plan",
    "pin",
    "pinned",
    "plan",
    "probe",
    "save_plan",
    "score",
]


def test_the_public_names_are_these_and_at_most_twenty():
    assert sorted(weft.__all__) == NAMES
    assert len(weft.__all__) <= 20


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there_and_is_listed(name):
    assert callable(getattr(weft, name))
    assert name in dir(weft)


def test_type_checkers_see_the_names_that_load():
    tree = ast.parse(Path(weft.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {a.asname: n.module for n in guarded.body for a in n.names}
    assert set(seen) == set(NAMES)
    for name, home in weft._HOME.items():
        assert seen[name] == home


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = weft.nonsense


def test_capture_is_a_function_also_after_its_package_was_imported():
    import weft.capture

    assert callable(weft.capture)
    assert weft.capture.Workload is weft.Workload


def test_the_version_is_a_release_number():
    assert re.fullmatch(r"\d+\.\d+\.\d+", weft.__version__)
