"""Recipes: workloads and tasks named as "path.py:function".

A recipe is a plain Python file with functions that take no arguments and return a `Workload`, or
what else a command asks for. A file alone stands for its function of the same name. The file's
folder is importable while it is loaded, so that recipes may share code. Knows files and functions;
does not know what a workload does.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from weft.core.errors import FileError, InputError, WeftError

if TYPE_CHECKING:
    from weft.capture import Workload
    from weft.rl.task import Task

__all__ = ["call_recipe", "load_task", "load_workload", "split_recipe"]

P = ParamSpec("P")
R = TypeVar("R")

_DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}
"""What to install for a module, where pip knows it by another name."""


def split_recipe(recipe: str) -> tuple[Path, str]:
    """File and function of a recipe's name; of a file alone, the function that is called like it.

    Raises:
        InputError: the text is neither a Python file nor one, a colon and a name.

    Example:
        >>> path, function = split_recipe("recipes/gpt.py:gpt_small")
        >>> path.name, function
        ('gpt.py', 'gpt_small')
        >>> split_recipe("recipes/rl_reverse.py")[1]
        'rl_reverse'
    """
    path, _, function = recipe.rpartition(":")
    if recipe.endswith(".py"):
        path, function = recipe, Path(recipe).stem
    if not path.endswith(".py") or not function.isidentifier():
        raise InputError(
            need="a recipe as FILE.py:FUNCTION, or FILE.py with a function called FILE",
            got=repr(recipe),
            hint="for example recipes/gpt.py:gpt_small",
        )
    return Path(path), function


def call_recipe(recipe: str, returns: str) -> object:
    """Import the file and call the function.

    Args:
        recipe: FILE.py:FUNCTION.
        returns: what the function shall return, for errors.

    Raises:
        FileError: the file is missing or cannot be imported, or a package that it needs is not
            installed.
        InputError: the function is missing or wants arguments.
    """
    path, name = split_recipe(recipe)
    function = _function(_import(path), path, name, returns)
    try:
        with _packages(recipe):
            return function()
    except WeftError as error:
        raise error.within(recipe) from error.__cause__


def load_workload(recipe: str) -> Workload:
    """Import the file and call the function.

    Raises:
        FileError: the file is missing or cannot be imported, or a package that it needs is not
            installed; the latter also from the workload's `model` and `batch`.
        InputError: the function is missing, wants arguments or returns something else.
    """
    from weft.capture import Workload

    hint = "end the function with `return weft.Workload(name=..., model=..., ...)`"
    workload = _returned(recipe, Workload, "a weft.Workload", hint)
    return replace(
        workload,
        model=_with_packages(workload.model, recipe),
        batch=_with_packages(workload.batch, recipe),
    )


def load_task(recipe: str) -> Task:
    """The task of reinforcement learning that a recipe's function returns.

    Raises:
        FileError: the file is missing or cannot be imported, or a package that it needs is not
            installed; the latter also from what makes the task's model, tokenizer and sampler.
        InputError: the function is missing, wants arguments or returns something else.
    """
    from weft.rl.task import Task

    hint = "for example recipes/rl_reverse.py:rl_reverse"
    task = _returned(recipe, Task, "a weft.rl.Task", hint)
    sampler = task.make_sampler
    return replace(
        task,
        make_model=_with_packages(task.make_model, recipe),
        make_tokenizer=_with_packages(task.make_tokenizer, recipe),
        make_sampler=None if sampler is None else _with_packages(sampler, recipe),
    )


def _returned(recipe: str, kind: type[R], words: str, hint: str) -> R:
    """What the function returns, if it is of a kind; errors call that in words."""
    found = call_recipe(recipe, words)
    if not isinstance(found, kind):
        raise InputError(
            need=f"a recipe function that returns {words}",
            got=f"{recipe} returned {type(found).__name__}",
            hint=hint,
        )
    return found


def _with_packages(function: Callable[P, R], recipe: str) -> Callable[P, R]:
    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        with _packages(recipe):
            return function(*args, **kwargs)

    return guarded


@contextmanager
def _packages(recipe: str) -> Generator[None]:
    """Name the package to install where a module is not found; other errors pass."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if not module or _is_found(module):
            raise
        raise FileError(
            need=f"the packages that the recipe imports: {recipe}",
            got=f"{type(error).__name__}: {error}",
            hint=f"pip install {_DISTRIBUTIONS.get(module, module)}",
        ) from error


def _is_found(module: str) -> bool:
    # A package that is there but lacks a submodule is of another version, not missing.
    return module in sys.modules or importlib.util.find_spec(module) is not None


def _import(path: Path) -> ModuleType:
    if not path.is_file():
        near = sorted(str(p) for p in path.parent.glob("*.py") if p.name[0] != "_")
        raise FileError(
            need="a Python file with recipes",
            got=f"{path}, which does not exist",
            hint=f"there are {', '.join(near)}" if near else f"look at {path.parent}/",
        )
    # A name of its own, so that recipes/gpt.py cannot shadow a package called gpt.
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"weft_recipe_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "a .py file always has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        with _packages(str(path)):
            spec.loader.exec_module(module)
    except (ImportError, SyntaxError) as error:
        raise FileError(
            need=f"a recipe file that Python can import: {path}",
            got=f"{type(error).__name__}: {error}",
            hint="run `python " + str(path) + "` to see where it fails",
        ) from error
    finally:
        sys.path.remove(folder)
    return module


def _function(module: ModuleType, path: Path, name: str, returns: str) -> Callable[[], object]:
    recipes = {
        key: value
        for key, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not key.startswith("_")
        and _needs_no_arguments(value)
    }
    if name not in recipes:
        known = getattr(module, name, None)
        got = (
            f"no function {name} in {path}"
            if known is None
            else f"{name} in {path}, which is {_describe(known)}"
        )
        raise InputError(
            need=f"a function without required arguments that returns {returns}",
            got=got,
            hint=f"{path} has {', '.join(sorted(recipes))}"
            if recipes
            else f"{path} has no function that could be a recipe",
        )
    return recipes[name]


def _needs_no_arguments(function: Callable[..., object]) -> bool:
    return all(
        p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        for p in inspect.signature(function).parameters.values()
    )


def _describe(thing: object) -> str:
    if inspect.isfunction(thing):
        return f"a function with arguments {inspect.signature(thing)}"
    return f"of type {type(thing).__name__}"
