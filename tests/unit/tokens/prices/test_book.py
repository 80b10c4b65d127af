import pytest

from weft.core.errors import InputError
from weft.tokens.prices import FileBook, GenaiBook, LitellmBook, open_book


def test_a_book_is_found_by_its_name_or_as_a_file(tmp_path):
    assert isinstance(open_book("genai"), GenaiBook)
    mine = tmp_path / "mine.yaml"
    mine.write_text("prices: []")
    assert isinstance(open_book(str(mine)), FileBook)
    theirs = tmp_path / "map.json"
    theirs.write_text("{}")
    assert isinstance(open_book(theirs), LitellmBook)


def test_a_name_that_is_none_is_told_what_there_is():
    with pytest.raises(InputError, match="genai, litellm, or a file"):
        open_book("nowhere.yaml")
