import doctest
from pathlib import Path

from weft.tokens.macro.market_file import read_clients, read_steps

GUIDE = Path(__file__).parents[4] / "docs" / "guides" / "tolls.md"


def test_what_the_guide_shows_is_what_comes_out():
    found = doctest.testfile(str(GUIDE), module_relative=False)
    assert found.attempted > 10 and found.failed == 0


def test_the_file_of_the_guide_is_one(tmp_path):
    path = tmp_path / "server.yaml"
    path.write_text(GUIDE.read_text().split("```yaml\n")[1].split("```")[0])
    assert [own.name for own in read_steps(path).resources] == ["compute", "memory"]
    assert sum(own.share for own in read_clients(path)) == 1.0
