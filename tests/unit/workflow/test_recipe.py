import pytest

from weft.core.errors import CaptureError, FileError, InputError
from weft.workflow import recipe as recipe_module
from weft.workflow.recipe import load_task, load_workload, split_recipe

SOURCE = """
import torch
from weft.capture import SGD, Workload
from weft.core.errors import CaptureError
from neighbour import WIDTH


def small(*, width=WIDTH):
    return Workload(
        name="small",
        model=lambda: torch.nn.Linear(width, 1),
        loss=lambda model, batch: model(batch["x"]).sum(),
        batch=lambda step: {"x": torch.ones(4, width)},
        optimizer=SGD(lr=0.1),
    )


def wrong():
    return 3


def needs(width):
    return small(width=width)


def refuses():
    raise CaptureError(need="this", got="that")


def _private():
    return small()


answer = 42
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "neighbour.py").write_text("WIDTH = 3\n")
    path = tmp_path / "toy.py"
    path.write_text(SOURCE)
    return path


def test_a_recipe_gives_its_workload_and_may_import_its_neighbours(recipe):
    workload = load_workload(f"{recipe}:small")
    assert workload.name == "small"
    assert workload.batch(0)["x"].shape == (4, 3)


@pytest.mark.parametrize(
    "text", ["not a name.py", "toy:small", "toy.py:", ":small", "toy.py:not a name"]
)
def test_a_name_that_is_no_file_and_function_is_refused_as_given(text):
    with pytest.raises(InputError) as caught:
        split_recipe(text)
    assert repr(text) in str(caught.value)


def test_a_missing_file_is_answered_with_the_files_that_are_there(recipe):
    with pytest.raises(FileError) as caught:
        load_workload(f"{recipe.parent}/tos.py:small")
    assert "does not exist" in caught.value.got
    assert str(recipe) in caught.value.hint


def test_a_missing_function_is_answered_with_the_recipes_that_are_there(recipe):
    with pytest.raises(InputError) as caught:
        load_workload(f"{recipe}:smal")
    assert caught.value.got == f"no function smal in {recipe}"
    assert caught.value.hint == f"{recipe} has refuses, small, wrong"


def test_a_function_that_wants_arguments_is_no_recipe(recipe):
    with pytest.raises(InputError, match=r"arguments \(width\)"):
        load_workload(f"{recipe}:needs")


def test_a_value_is_no_recipe(recipe):
    with pytest.raises(InputError, match="of type int"):
        load_workload(f"{recipe}:answer")


def test_a_function_that_returns_something_else_is_refused_with_its_type(recipe):
    with pytest.raises(InputError, match="wrong returned int"):
        load_workload(f"{recipe}:wrong")


def test_an_error_of_the_recipe_is_told_with_its_place(recipe):
    with pytest.raises(CaptureError) as caught:
        load_workload(f"{recipe}:refuses")
    assert caught.value.where == f"{recipe}:refuses"


@pytest.mark.parametrize(
    "line", ["import torch.nothing_of_that_name", "from torch import nothing", "def broken(:"]
)
def test_a_file_that_python_cannot_import_is_named_with_the_cause(tmp_path, line):
    path = tmp_path / "broken.py"
    path.write_text(line + "\n")
    with pytest.raises(FileError) as caught:
        load_workload(f"{path}:small")
    assert str(path) in caught.value.need
    assert "Error: " in caught.value.got
    assert caught.value.hint.startswith("run `python ")


WANTS = """
import torch
from weft.capture import SGD, Workload
{top}

def when_called():
    import absent_package.part

def in_batch():
    def batch(step):
        import absent_package

    def model():
        import absent_package

    return Workload(
        name="wants", model=model, loss=lambda m, b: m(b), batch=batch, optimizer=SGD(lr=0.1)
    )
"""


def test_a_package_that_the_file_imports_is_to_be_installed(tmp_path):
    path = tmp_path / "wants.py"
    path.write_text(WANTS.format(top="import absent_package.part"))
    with pytest.raises(FileError) as caught:
        load_workload(f"{path}:when_called")
    assert caught.value.hint == "pip install absent_package"
    assert "No module named 'absent_package'" in caught.value.got


def test_a_package_is_called_by_the_name_that_pip_knows(tmp_path, monkeypatch):
    monkeypatch.setitem(recipe_module._DISTRIBUTIONS, "absent_package", "absent-package-2")
    path = tmp_path / "wants.py"
    path.write_text(WANTS.format(top="import absent_package"))
    with pytest.raises(FileError) as caught:
        load_workload(f"{path}:when_called")
    assert caught.value.hint == "pip install absent-package-2"


def test_a_package_that_is_imported_only_when_called_is_to_be_installed_too(tmp_path):
    path = tmp_path / "wants.py"
    path.write_text(WANTS.format(top=""))
    with pytest.raises(FileError) as caught:
        load_workload(f"{path}:when_called")
    assert caught.value.hint == "pip install absent_package"
    workload = load_workload(f"{path}:in_batch")
    for call in (lambda: workload.batch(0), workload.model):
        with pytest.raises(FileError) as caught:
            call()
        assert caught.value.hint == "pip install absent_package"
        assert str(path) in caught.value.need


TASK = """
from weft.rl import Prompt, Task


def absent():
    import absent_package


def wants():
    return Task(
        name="wants",
        make_model=absent,
        make_tokenizer=absent,
        make_sampler=absent,
        prompts=lambda first, count: [Prompt(text="1")] * count,
        reward=lambda prompt, text: 1.0,
        new_tokens=1,
    )


def three():
    return 3
"""


def test_packages_that_a_task_needs_are_to_be_installed(tmp_path):
    path = tmp_path / "wants.py"
    path.write_text(TASK)
    task = load_task(f"{path}:wants")
    assert task.make_sampler is not None
    for call in (task.make_model, task.make_tokenizer, task.make_sampler):
        with pytest.raises(FileError) as caught:
            call()
        assert caught.value.hint == "pip install absent_package"


def test_what_is_no_task_is_refused_with_its_type(tmp_path):
    path = tmp_path / "wants.py"
    path.write_text(TASK)
    with pytest.raises(InputError, match="returned int"):
        load_task(f"{path}:three")


def test_a_file_alone_stands_for_its_function_of_the_same_name(tmp_path):
    path = tmp_path / "wants.py"
    path.write_text(TASK)
    assert load_task(str(path)).name == "wants"
    path.rename(tmp_path / "other.py")
    with pytest.raises(InputError, match="no function other") as caught:
        load_task(str(tmp_path / "other.py"))
    assert "three, wants" in str(caught.value.hint)


def test_two_recipe_files_of_one_name_do_not_meet(recipe, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "neighbour.py").write_text("WIDTH = 3\n")
    (other / "toy.py").write_text(SOURCE.replace('name="small"', 'name="second"'))
    assert load_workload(f"{recipe}:small").name == "small"
    assert load_workload(f"{other / 'toy.py'}:small").name == "second"
