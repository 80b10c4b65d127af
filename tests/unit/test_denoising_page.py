"""The guide on denoising says what is there."""

import ast
import inspect
import re
import shlex
from pathlib import Path

import pytest

import weft.diffusion
from weft.cli.border import build_parser

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "denoising.md").read_text()


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_programs_use_names_and_arguments_that_exist(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module == "weft.diffusion":
            assert {alias.name for alias in node.names} <= set(weft.diffusion.__all__)
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("weft.diffusion."):
            called = getattr(weft.diffusion, ast.unparse(node.func).removeprefix("weft.diffusion."))
            named = {keyword.arg: None for keyword in node.keywords}
            inspect.signature(called).bind(*node.args, **named)


def test_names_in_the_text_exist():
    named = set(re.findall(r"weft\.diffusion\.(\w+)", PAGE))
    assert {"accelerate", "calibrate", "pareto", "report"} <= named <= set(weft.diffusion.__all__)


@pytest.mark.parametrize("line", [c for block in blocks("console") for c in block.splitlines()])
def test_commands_are_understood(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prompt, command, *arguments = shlex.split(line)
    assert (prompt, command) == ("$", "weft")
    assert build_parser().parse_args(arguments).command == "denoise"
