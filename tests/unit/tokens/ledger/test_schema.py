import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.tokens.ledger.known import a_call
from weft.core.errors import FileError
from weft.tokens import Count, TokenClass, Usage
from weft.tokens.ledger import schema
from weft.tokens.ledger.schema import CALL_COLUMNS, INSERT, call_row, connect, row_call

COUNTS = st.builds(
    lambda low, more: Count(low, None if more is None else low + more),
    st.integers(0, 10**12),
    st.none() | st.integers(0, 10**12),
)


@given(
    st.dictionaries(st.sampled_from(list(TokenClass)), COUNTS),
    st.none() | st.booleans(),
    st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2),
)
def test_a_call_comes_back_from_its_row(counts, passed, labels):
    call = a_call(usage=Usage(counts=counts), passed=passed, labels=labels)
    connection = connect(":memory:")
    connection.execute(INSERT, call_row(call))
    row = connection.execute(f"SELECT {', '.join(CALL_COLUMNS)} FROM calls").fetchone()
    assert row_call(row) == call


def test_a_sum_that_is_known_better_than_its_classes_comes_back():
    split = Count(0, 10)
    call = a_call(usage=Usage.of(fresh=split, cache_read=split, input=10))
    assert row_call(call_row(call)) == call


def test_a_file_that_is_no_ledger_is_refused_and_left_alone(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a database" * 100)
    with pytest.raises(FileError, match="ledger"):
        connect(text)
    assert text.read_text().startswith("not a database")
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (x)")
    before = other.read_bytes()
    with pytest.raises(FileError, match="a database"):
        connect(other)
    assert other.read_bytes() == before


def test_a_ledger_of_another_version_is_refused(tmp_path):
    path = tmp_path / "ledger.db"
    connect(path).execute("PRAGMA user_version=999")
    with pytest.raises(FileError, match="a ledger of version 999"):
        connect(path)


def test_a_place_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileError, match="missing"):
        connect(tmp_path / "missing" / "ledger.db")


def test_a_ledger_can_be_opened_while_another_writes_to_it(tmp_path):
    writer = connect(tmp_path / "ledger.db")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute(INSERT, call_row(a_call(1)))
    reader = connect(tmp_path / "ledger.db")
    assert reader.execute("SELECT COUNT(*) FROM calls").fetchone() == (0,)
    writer.execute("COMMIT")
    assert reader.execute("SELECT COUNT(*) FROM calls").fetchone() == (1,)


def test_a_ledger_where_nothing_may_be_written_is_opened_to_be_read(tmp_path, monkeypatch):
    path = tmp_path / "ledger.db"
    writer = connect(path)
    writer.execute(INSERT, call_row(a_call(1)))
    connected = schema._connected

    def closed(path):
        if "immutable" not in path:
            raise sqlite3.OperationalError("unable to open database file")
        return connected(path)

    monkeypatch.setattr(schema, "_connected", closed)
    monkeypatch.setattr(schema.os, "access", lambda path, how: False)
    with pytest.raises(FileError, match="unable to open"):
        connect(path)  # what is beside it is not in it yet
    writer.close()
    assert connect(path).execute("SELECT COUNT(*) FROM calls").fetchone() == (1,)


def test_a_ledger_can_be_made_by_several_at_once(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        for number in range(5):
            list(pool.map(lambda n: connect(tmp_path / f"{n}.db").close(), [number] * 8))
