import doctest
from pathlib import Path

GUIDE = Path(__file__).parents[4] / "docs" / "guides" / "served_prices.md"


def test_what_the_guide_shows_is_what_comes_out():
    found = doctest.testfile(str(GUIDE), module_relative=False)
    assert found.attempted > 8 and found.failed == 0
