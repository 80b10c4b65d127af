"""The page on pins, as a reader would try it."""

import re
from pathlib import Path

import pytest

from weft.cli.main import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guides" / "pins.md").read_text()


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_programs_of_the_page_run(tmp_path, capsys):
    first, second = blocks("python")
    names = {"__name__": "page"}
    exec(compile(first, "page.py", "exec"), names)
    printed = capsys.readouterr().out
    for kept in (
        "kept layers.*.up.weight=S(0)x8 (4 tensors)",
        "kept tokens.weight=R (1 tensor)",
        "kept layers.3.down output=S(1) (1 tensor)",
    ):
        assert kept in printed
    names["Sequence"] = None
    exec(compile(second, "page.py", "exec"), names)
    names["Model"].__init__.__globals__["Layer"] = names["Sequence"]
    weft, program = names["weft"], names["weft"].capture(names["workload"])
    found = weft.plan(program, names["machine"])
    assert any("kept with weft.pinned(split=1) at page.py" in note for note in found.notes)


@pytest.mark.parametrize("command", [c for block in blocks("console") for c in block.splitlines()])
def test_the_commands_of_the_page_run(command, monkeypatch, capsys):
    import shlex

    monkeypatch.chdir(ROOT)
    assert main(shlex.split(command.removeprefix("$ weft "))) == 0
    assert "gpt_demo on dgx-h100x1" in capsys.readouterr().out
