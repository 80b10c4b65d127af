"""Files that say what they are."""

from __future__ import annotations

import sqlite3

import pytest

from weft.core.errors import FileError
from weft.tokens.database import Stamp, prepare

DIARY = Stamp(name="a diary", application=7, version=2, hint="take another")
TABLES = ("CREATE TABLE days (day TEXT)", "CREATE TABLE words (word TEXT)")


@pytest.fixture
def connection(tmp_path):
    own = sqlite3.connect(tmp_path / "diary.db", isolation_level=None)
    yield own
    own.close()


def tables(connection):
    return connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


def test_a_new_file_is_made_once(connection):
    for _ in range(2):
        prepare(connection, "diary.db", DIARY, TABLES)
    assert tables(connection) == 2


@pytest.mark.parametrize(
    ("application", "version", "told"),
    [(7, 1, "a diary of version 1"), (8, 2, "a database of version 2")],
)
def test_another_file_is_refused_as_it_is(connection, application, version, told):
    connection.execute(f"PRAGMA application_id={application}")
    connection.execute(f"PRAGMA user_version={version}")
    with pytest.raises(FileError, match=f"diary.db: {told}"):
        prepare(connection, "diary.db", DIARY, TABLES)
    assert tables(connection) == 0


def test_a_file_is_made_whole_or_not_at_all(connection):
    with pytest.raises(sqlite3.OperationalError):
        prepare(connection, "diary.db", DIARY, (*TABLES, "CREATE TABLE days (again TEXT)"))
    assert tables(connection) == 0
    prepare(connection, "diary.db", DIARY, TABLES)
