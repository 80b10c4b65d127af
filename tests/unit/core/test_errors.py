import copy
import inspect
import pickle

import pytest

from weft.core import errors
from weft.core.errors import (
    FileError,
    InfeasibleError,
    InputError,
    RuleError,
    RunError,
    WeftError,
)

CLASSES = [getattr(errors, name) for name in errors.__all__]


def parts(error):
    return [line.split(maxsplit=1)[0] for line in str(error).splitlines()[1:]]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_prints_its_three_parts_in_order(kind):
    error = kind(need="a mesh of 8", got="a mesh of 6", hint="pass --mesh 2x4")
    assert parts(error) == ["need", "got", "try"]
    assert "a mesh of 8" in str(error)
    assert "a mesh of 6" in str(error)
    assert "pass --mesh 2x4" in str(error)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_survives_pickling_as_ranks_send_them(kind):
    error = kind(need="n", got="g", hint="h").within("plan.json")
    error.add_note("seen on rank 3")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_of_the_tree_stands_in_the_drawing_at_the_top_of_the_file(kind):
    assert kind.__name__ in (errors.__doc__ or "")
    assert issubclass(kind, WeftError)


def test_no_two_classes_share_a_headline():
    headlines = [kind(need="n", got="g").headline() for kind in CLASSES]
    assert len(set(headlines)) == len(CLASSES)


def test_the_parts_are_required_by_keyword():
    for argument in ("need", "got"):
        assert inspect.signature(WeftError).parameters[argument].default is inspect.Parameter.empty
    with pytest.raises(TypeError):
        WeftError("just a message")  # pyright: ignore[reportCallIssue]


def test_borders_add_their_context_outermost_first():
    error = InputError(need="n", got="g").within("layer 3").within("gpt.py:small")
    assert str(error).startswith("gpt.py:small: layer 3: this input cannot be used.")


def test_within_returns_the_error_itself_so_that_it_can_be_raised_again():
    error = InputError(need="n", got="g")
    assert error.within("here") is error


def test_a_missing_hint_leaves_no_empty_line():
    assert parts(InputError(need="n", got="g")) == ["need", "got"]


def test_further_lines_of_a_part_stay_under_its_first():
    text = str(InputError(need="n", got="first\nsecond"))
    assert text.splitlines()[2:] == ["  got   first", "        second"]


def test_a_file_error_is_an_input_error():
    assert issubclass(FileError, InputError)


def test_a_rule_error_names_its_operator():
    assert "sort.default" in str(RuleError(need="n", got="g", operator="sort.default"))


def test_an_infeasible_problem_offers_its_options_in_their_order():
    options = ("--recompute (71.4 GiB)", "12 nodes")
    error = InfeasibleError(need="n", got="g", constraint="c", options=options)
    assert error.hint == "--recompute (71.4 GiB), or 12 nodes"
    assert InfeasibleError(need="n", got="g", hint="mine", options=options).hint == "mine"


@pytest.mark.parametrize(
    ("rank", "step", "headline"),
    [
        (2, 7, "the run failed on rank 2 in step 7."),
        (0, -1, "the run failed on rank 0."),
        (-1, 0, "the run failed in step 0."),
        (-1, -1, "the run failed."),
    ],
)
def test_a_run_error_says_where_and_when_as_far_as_known(rank, step, headline):
    assert RunError(need="n", got="g", rank=rank, step=step).headline() == headline
