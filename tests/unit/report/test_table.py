import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.report.table import Table, format_table, numeric_columns

WORDS = st.text("abcxyz", min_size=1, max_size=9)
NUMBERS = st.floats(0, 1e6).map(lambda x: f"{x:.3g} ms")


@given(st.lists(st.tuples(WORDS, NUMBERS), min_size=1, max_size=6))
def test_words_start_and_numbers_end_at_the_same_column_of_every_line(rows):
    lines = format_table(Table(columns=("plan", "step"), rows=tuple(rows))).splitlines()
    width = max(map(len, lines))
    assert len(lines) == len(rows) + 2
    assert all(len(line) == width for line in lines)
    for line, (word, number) in zip(lines[2:], rows, strict=True):
        assert line.startswith(word)
        assert line.endswith(number)


def test_a_column_is_numeric_only_if_every_filled_cell_is_a_number():
    rows = (("1", "2 ms", ""), ("", "none", ""))
    assert numeric_columns(Table(columns=("a", "b", "c"), rows=rows)) == (True, False, False)


def test_a_caption_stands_above_the_titles():
    text = format_table(Table(columns=("a",), rows=(("x",),), caption="what it is"))
    assert text.splitlines() == ["what it is", "a", "-", "x"]


def test_a_row_of_the_wrong_length_is_refused_with_its_number():
    with pytest.raises(InputError, match="1 cells in row 1"):
        Table(columns=("a", "b"), rows=(("1", "2"), ("3",)))
