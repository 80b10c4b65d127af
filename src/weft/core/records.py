"""Records: what happened when a plan ran, one JSON line each.

A record is a kind, a time and plain JSON fields. Reports read records and nothing else, so
whatever a page shows can be traced to a line in a file.

Lines are appended whole and under a lock, so several processes may share one file, and a kill
loses at most the line that was being written.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from weft.core.digest import canonical_json
from weft.core.errors import FileError

__all__ = ["Record", "RecordLog", "number_in", "read_records"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One thing that happened: `kind` says what, `fields` hold plain JSON values.

    JSON has no NaN and no infinity, but a loss can become either: they are written as the
    strings "nan", "inf" and "-inf", which `float` reads back.

    Example:
        >>> Record(kind="step", fields={"loss": float("nan")}, time_s=0.0).to_json()
        '{"fields":{"loss":"nan"},"kind":"step","time_s":0.0}'
    """

    kind: str
    fields: Mapping[str, object]
    time_s: float = field(default_factory=time.time)

    def to_json(self) -> str:
        """One line of JSON without a newline.

        Raises:
            InputError: a field is not plain JSON.
        """
        fields = _spell_non_finite(self.fields)
        return canonical_json({"kind": self.kind, "time_s": self.time_s, "fields": fields})


class RecordLog:
    """Appends records to a file; what a killed writer left of a line is cleared away first.

    Raises:
        FileError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _written(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path) as handle:
                _mend_last_line(handle)

    def append(self, kind: str, **fields: object) -> Record:
        """Write one record and return it.

        Raises:
            InputError: a field is not plain JSON.
            FileError: the line could not be written whole.
        """
        record = Record(kind=kind, fields=fields)
        line = (record.to_json() + "\n").encode()
        with _written(self._path), _locked(self._path) as handle:
            written = os.write(handle, line)
        if written != len(line):
            raise FileError(
                need=f"room for a line of {len(line)} bytes",
                got=f"{self._path}: {written} bytes were written",
                hint="free some disk space; a new log clears the torn line away",
            )
        return record


def number_in(field: object) -> float | None:
    """A number as it stands in a field of a record, where "nan" and "inf" are text; else None.

    Example:
        >>> number_in(3), number_in("-inf"), number_in("fast"), number_in(None)
        (3.0, -inf, None, None)
    """
    if isinstance(field, bool) or not isinstance(field, int | float | str):
        return None
    try:
        return float(field)
    except (ValueError, OverflowError):
        return None


def read_records(path: Path, kind: str | None = None) -> Iterator[Record]:
    """Records of a file in order, those of one kind if given.

    A torn last line, as a kill leaves it, is skipped; a bad line before it is an error.

    Raises:
        FileError: the file is missing or a line that is not the last is not a record.
    """
    try:
        text = path.read_bytes().decode(errors="replace")
    except OSError as error:
        raise FileError(
            need="a record file",
            got=f"{path}: {error.strerror}",
            hint="a run writes one with --records",
        ) from error
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        record = _parse(line)
        if record is None and number < len(lines):
            raise FileError(
                need="one record of JSON on each line",
                got=f"{path}, line {number}: {line[:80]!r}",
                hint="delete the broken line; later records are intact",
            )
        if record is not None and kind in (None, record.kind):
            yield record


def _parse(line: str) -> Record | None:
    try:
        raw = json.loads(line)
    except ValueError:
        return None
    match raw:
        case {"kind": str(kind), "fields": {}, "time_s": float() | int() as time_s}:
            fields = cast("dict[str, dict[str, object]]", raw)["fields"]
            return Record(kind=kind, fields=fields, time_s=time_s)
        case _:
            return None


def _spell_non_finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    if isinstance(value, Mapping):
        items = cast("Mapping[str, object]", value).items()
        return {key: _spell_non_finite(item) for key, item in items}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_spell_non_finite(item) for item in cast("Sequence[object]", value)]
    return value


@contextmanager
def _written(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise FileError(
            need="a file to append records to",
            got=f"{path}: {error.strerror}",
            hint="choose a file in a folder that may be written to and has room",
        ) from error


@contextmanager
def _locked(path: Path) -> Generator[int]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)  # releases the lock


def _mend_last_line(handle: int) -> None:
    # Appending to half a line would spoil a good record, and reading would then stop there.
    size = os.fstat(handle).st_size
    if size == 0:  # also a pipe or a device, in which there is nothing to go back to
        return
    content = os.pread(handle, size, 0)
    tail = content[content.rfind(b"\n") + 1 :]
    if not tail:
        return
    if _parse(tail.decode(errors="replace")) is not None:
        os.write(handle, b"\n")
    else:
        os.ftruncate(handle, size - len(tail))
