import pytest

from weft.core.errors import InputError
from weft.tokens import Usage
from weft.tokens.adapters.table import parse_columns

ROW = {
    "#": 1,
    "TIMESTAMP": "2023-11-16 18:15:46.6805900",
    "ContextTokens": "374",
    "GeneratedTokens": "44",
}
COLUMNS = ["at=TIMESTAMP", "input=ContextTokens", "output=GeneratedTokens", "model=:gpt-4o"]


def the_call(columns, row=ROW, at=None):
    (call,) = parse_columns(columns).calls(row, at)
    return call


def test_a_row_is_a_call_as_its_columns_say():
    call = the_call([*COLUMNS, "cached=:0", "reasoning=:0", "agent=:shop"])
    assert call.at == pytest.approx(1700158546.68059)
    assert (call.model, call.provider, call.agent) == ("gpt-4o", "openai", "shop")
    assert call.usage == Usage.of(fresh=374, text=44)


def test_what_no_column_says_is_unknown():
    assert not the_call(COLUMNS).usage.is_exact
    assert the_call(COLUMNS).usage.input.is_exact


def test_equal_rows_at_different_places_are_different_calls():
    assert the_call(COLUMNS).id != the_call(COLUMNS, {**ROW, "#": 2}).id
    assert the_call(COLUMNS).id == the_call(COLUMNS, dict(ROW)).id


def test_a_column_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(InputError, match=r"(?s)no Context.*ContextTokens"):
        the_call(["at=TIMESTAMP", "input=Context"])


def test_a_row_without_a_time_has_the_one_that_was_given_or_is_refused():
    assert the_call(["input=ContextTokens"], at=9.0).at == 9.0
    with pytest.raises(InputError, match="--at"):
        the_call(["input=ContextTokens"])


@pytest.mark.parametrize("word", ["TIMESTAMP", "when=TIMESTAMP", "at=", "=x"])
def test_a_word_that_says_no_column_is_refused(word):
    with pytest.raises(InputError, match="WHAT=COLUMN"):
        parse_columns([word])


@pytest.mark.parametrize("row", [{**ROW, None: ["5"]}, {**ROW, "GeneratedTokens": None}])
def test_a_row_of_more_or_fewer_values_is_refused(row):
    with pytest.raises(InputError, match="as many values"):
        the_call(COLUMNS, row)
