"""Records: what happened when a plan ran, one JSON line each.

A record is a kind, a time and plain JSON fields. Reports read records and nothing else, so
whatever a page shows can be traced to a line in a file.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from weft.core.digest import canonical_json
from weft.core.errors import FileError

__all__ = ["Record", "RecordLog", "read_records"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One thing that happened: `kind` says what, `fields` hold plain JSON values."""

    kind: str
    fields: Mapping[str, object]
    time_s: float = field(default_factory=time.time)

    def to_json(self) -> str:
        """One line of JSON without a newline."""
        return canonical_json(
            {"kind": self.kind, "time_s": self.time_s, "fields": self.fields}
        )


class RecordLog:
    """Appends records to a file, one whole line a write, so that a kill loses at most one line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, kind: str, **fields: object) -> Record:
        """Write one record and return it."""
        record = Record(kind=kind, fields=fields)
        line = (record.to_json() + "\n").encode()
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)
        return record


def read_records(path: Path, kind: str | None = None) -> Iterator[Record]:
    """Records of a file in order, those of one kind if given.

    A torn last line, as a kill leaves it, is skipped; a bad line before it is an error.

    Raises:
        FileError: the file is missing or a line that is not the last is not a record.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise FileError(
            need="a record file", got=f"{path}: {error.strerror}"
        ) from error
    for number, line in enumerate(lines, start=1):
        try:
            raw = json.loads(line)
            record = Record(
                kind=raw["kind"], fields=raw["fields"], time_s=raw["time_s"]
            )
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                return
            raise FileError(
                need="one record of JSON on each line",
                got=f"{path}, line {number}: {line[:80]!r}",
                hint="delete the broken line; later records are intact",
            ) from error
        if kind is None or record.kind == kind:
            yield record
