import doctest
from pathlib import Path

GUIDE = Path(__file__).parents[4] / "docs" / "guides" / "budgets.md"


def test_what_the_guide_shows_is_what_comes_out():
    flags = doctest.NORMALIZE_WHITESPACE
    found = doctest.testfile(str(GUIDE), module_relative=False, optionflags=flags)
    assert found.attempted > 10 and found.failed == 0
