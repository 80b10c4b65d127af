"""Rules of the house that no linter knows: sizes, names, and what the project never mentions."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "weft").rglob("*.py"))
MAX_MODULE_LINES, MAX_FUNCTION_LINES = 500, 60


def long_functions(text):
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, functions)
            and (node.end_lineno or 0) - node.lineno > MAX_FUNCTION_LINES
        ):
            yield f"{node.name} (line {node.lineno})"


def name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_module_holds_one_concept_that_fits_on_a_few_screens(path):
    text = path.read_text()
    assert text.count("\n") <= MAX_MODULE_LINES
    assert list(long_functions(text)) == []


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_module_says_what_it_is_and_is_named_for_it(path):
    assert ast.get_docstring(ast.parse(path.read_text()))
    assert path.stem not in {"utils", "util", "misc", "helpers", "common"}


def test_long_functions_are_found():
    body = "\n".join(["    x = 1"] * (MAX_FUNCTION_LINES + 1))
    assert list(long_functions(f"def short():\n    pass\n\ndef long():\n{body}\n")) == [
        "long (line 4)"
    ]


def test_no_committed_text_names_a_machine_path_or_an_index():
    found = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if found.returncode != 0:
        pytest.skip("not a git checkout, so there is no list of committed files")
    foreign = re.compile(r"(?<![\w.])/(?:home|root|work)/\w|--(?:extra-)?index-url")
    here = Path(__file__).relative_to(ROOT)
    named = [
        f"{file}: {match.group()}"
        for file in found.stdout.splitlines()
        if Path(file) != here and (ROOT / file).is_file()
        for match in foreign.finditer((ROOT / file).read_text(errors="replace"))
    ]
    assert named == []
