import sqlite3

from weft.tokens.classes import INPUT, OUTPUT, TokenClass


def test_each_class_is_read_or_generated_and_not_both():
    assert set(TokenClass) == INPUT | OUTPUT
    assert not INPUT & OUTPUT


def test_values_are_names_that_a_database_takes_as_columns():
    names = ", ".join(f"{leaf.value} INTEGER" for leaf in TokenClass)
    sqlite3.connect(":memory:").execute(f"CREATE TABLE one ({names})")


def test_what_is_read_from_caches_is_input_and_reasoning_is_output():
    assert {TokenClass.CACHE_READ, TokenClass.CACHE_WRITE_1H, TokenClass.TOOL} <= INPUT
    assert {TokenClass.REASONING, TokenClass.REJECTED} <= OUTPUT
