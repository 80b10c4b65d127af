import doctest
import re
from pathlib import Path

import pytest

from weft.cli.border import build_parser

GUIDE = Path(__file__).parents[4] / "docs" / "guides" / "guards.md"


def test_what_the_guide_shows_is_what_comes_out():
    flags = doctest.NORMALIZE_WHITESPACE
    found = doctest.testfile(str(GUIDE), module_relative=False, optionflags=flags)
    assert found.attempted > 25 and found.failed == 0


@pytest.mark.parametrize("line", re.findall(r"^\$ weft (.*)$", GUIDE.read_text(), re.MULTILINE))
def test_commands_are_understood(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ledger.db").touch()
    Path("logs").mkdir()
    words = line.replace('"', "").split()
    assert build_parser().parse_args(words).command == "tokens"
