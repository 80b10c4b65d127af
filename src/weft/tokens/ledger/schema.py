"""How calls lie in a database: a row each, a column for each class of tokens.

A count is its lower end and, in a column beside it, how much more it may be: 0 where it is exact,
NULL where nothing limits it. Zeros take no room in SQLite's rows.

Source: SQLite documentation, record format (serial types 8 and 9).
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from weft.core.errors import FileError
from weft.tokens.call import Call, Status
from weft.tokens.classes import TokenClass
from weft.tokens.count import UNKNOWN, Count
from weft.tokens.database import Stamp, keep_log, prepare
from weft.tokens.usage import Usage

__all__ = [
    "CALL_COLUMNS",
    "COUNTS",
    "INSERT",
    "WORDS",
    "call_row",
    "connect",
    "plain_text",
    "row_call",
]

_STAMP = Stamp(
    name="a ledger",
    application=0x77656674,  # "weft" in ASCII
    version=1,
    hint="name another file; a ledger of another version is made anew from the logs",
)

WORDS = (
    *("source", "id", "provider", "model", "tier", "status", "payer", "agent", "task", "session"),
    *("parent", "arm"),
)
"""Columns of text, empty for what nobody said."""
_OTHERS = ("at", "seconds", "passed", "skew", "labels")
COUNTS = ("input", "output", *(leaf.value for leaf in TokenClass))
"""Columns of counts; beside each is one named with _more."""
CALL_COLUMNS = (*WORDS, *_OTHERS, *(name + end for name in COUNTS for end in ("", "_more")))

_FIRST_COUNT = len(WORDS) + len(_OTHERS)
_PLACES = {leaf: _FIRST_COUNT + 4 + 2 * place for place, leaf in enumerate(TokenClass)}
_ZEROS = (0,) * (2 * len(COUNTS))

_KEPT = tuple(name for name in WORDS if name not in ("source", "id", "status", "tier"))
_CHANGES = (
    *(f"{name} = excluded.{name}" for name in ("status", "tier", *CALL_COLUMNS[_FIRST_COUNT:])),
    *(f"{name} = COALESCE(excluded.{name}, {name})" for name in ("seconds", "passed")),
    *(f"{name} = CASE {name} WHEN '' THEN excluded.{name} ELSE {name} END" for name in _KEPT),
)
INSERT = (
    f"INSERT INTO calls ({', '.join(CALL_COLUMNS)})"
    f" VALUES ({', '.join('?' * len(CALL_COLUMNS))})"
    f" ON CONFLICT (source, id) DO UPDATE SET {', '.join(_CHANGES)}"
    " WHERE calls.status = 'aborted' AND (excluded.status = 'done'"
    " OR excluded.status = 'aborted' AND excluded.output > calls.output)"
)
"""Write a call, if it is not there. One that was broken off gives way to what is known later: logs
of streams, and those of some agents, have a call several times, the last time whole."""

_TABLES = f"""
CREATE TABLE calls (
  {", ".join(f"{name} TEXT NOT NULL" for name in WORDS)},
  at REAL NOT NULL, seconds REAL, passed INTEGER, skew TEXT NOT NULL, labels TEXT NOT NULL,
  {", ".join(f"{name} INTEGER NOT NULL, {name}_more INTEGER" for name in COUNTS)},
  UNIQUE (source, id)
);
CREATE TABLE files (
  path TEXT PRIMARY KEY, head TEXT NOT NULL, head_bytes INTEGER NOT NULL,
  position INTEGER NOT NULL, line INTEGER NOT NULL,
  records INTEGER NOT NULL, calls INTEGER NOT NULL, duplicates INTEGER NOT NULL,
  ignored INTEGER NOT NULL
);
CREATE TABLE quarantine (
  path TEXT NOT NULL, line INTEGER NOT NULL, reason TEXT NOT NULL, record TEXT NOT NULL,
  PRIMARY KEY (path, line)
) WITHOUT ROWID;
"""


def connect(path: str | Path) -> sqlite3.Connection:
    """Open a ledger's database, and make it if there is none.

    One that lies where nothing may be written is opened to be read, if nobody has it open.

    Raises:
        FileError: the file is something else, newer, or cannot be opened.
    """
    try:
        return _connected(str(path))
    except sqlite3.Error as error:
        if _is_archived(Path(path)):
            with suppress(sqlite3.Error):
                return _connected(f"{Path(path).absolute().as_uri()}?immutable=1")
        raise FileError(
            need="a ledger, or a place to make one",
            got=f"{path}: {error}",
            hint="weft tokens ingest FILES -o ledger.db makes one",
        ) from error


def _connected(path: str) -> sqlite3.Connection:
    is_fixed = path.endswith("?immutable=1")
    connection = sqlite3.connect(path, timeout=60.0, isolation_level=None, uri=is_fixed)
    try:
        prepare(connection, path, _STAMP, _TABLES.split(";"))
        # A kill loses nothing that was committed; a power cut may lose the last batches, which
        # reading the same files again brings back.
        if not is_fixed:
            keep_log(connection)
        for pragma in ("synchronous=NORMAL", "cache_size=-262144"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def _is_archived(path: Path) -> bool:
    """Whether all of a file is in it, and it may not be written to."""
    log = path.with_name(f"{path.name}-wal")
    is_whole = path.is_file() and not (log.exists() and log.stat().st_size)
    return is_whole and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))


def plain_text(text: str) -> str:
    """Text that databases take: halves of characters, which JSON may hold, are written out.

    Example:
        >>> plain_text("a" + chr(0xD800)) == "a" + chr(92) + "ud800"
        True
    """
    return text.encode("utf-8", "backslashreplace").decode()


def call_row(call: Call, *, skew: str = "") -> tuple[object, ...]:
    """A call as a row, in the order of CALL_COLUMNS; `skew` is what is wrong with its times."""
    usage = call.usage
    labels = call.labels
    row: list[object] = [
        call.source,
        call.id,
        call.provider,
        call.model,
        call.tier,
        call.status.value,
        call.payer,
        call.agent,
        call.task,
        call.session,
        call.parent,
        call.arm,
        call.at,
        call.seconds,
        call.passed,
        skew or (labels.get("skew", "") if labels else ""),
        json.dumps(dict(labels)) if labels else "",
        *_ZEROS,
    ]
    for place, own in ((_FIRST_COUNT, usage.input), (_FIRST_COUNT + 2, usage.output)):
        row[place] = own.low
        row[place + 1] = None if own.high is None else own.high - own.low
    for leaf, own in usage.counts.items():
        place = _PLACES[leaf]
        row[place] = own.low
        row[place + 1] = None if own.high is None else own.high - own.low
    return tuple(row)


def row_call(row: Sequence[object]) -> Call:
    """A call from a row with the columns CALL_COLUMNS."""
    told = dict(zip(CALL_COLUMNS, row, strict=True))
    words = {name: str(told[name]) for name in WORDS if name != "status"}
    passed, labels = told["passed"], str(told["labels"])
    return Call(
        **words,  # pyright: ignore[reportArgumentType]
        at=float(str(told["at"])),
        seconds=None if told["seconds"] is None else float(str(told["seconds"])),
        passed=None if passed is None else bool(passed),
        status=Status(str(told["status"])),
        labels=json.loads(labels) if labels else {},
        usage=Usage(
            counts={leaf: _count(told, leaf.value) for leaf in TokenClass},
            input=_count(told, "input"),
            output=_count(told, "output"),
        ),
    )


def _count(told: dict[str, object], name: str) -> Count:
    low, more = told[name], told[f"{name}_more"]
    assert isinstance(low, int)
    if more is None:
        return UNKNOWN if low == 0 else Count(low, None)
    assert isinstance(more, int)
    return Count(low, low + more)
