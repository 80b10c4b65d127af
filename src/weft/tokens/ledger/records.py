"""Records in files: lines of JSON, arrays, single objects and tables, packed or not.

Knows where a record begins and ends. Does not know what it says, nor whether it can be read.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from weft.core.errors import FileError

__all__ = ["Raw", "file_head", "find_files", "read_raw", "table_columns"]

_SUFFIXES = frozenset({".json", ".jsonl", ".ndjson", ".csv", ".log"})
_HEAD_BYTES = 4096
"""Enough to tell files apart; logs begin with times and ids. Chosen."""
QUIET_S = 60.0
"""After which a file is whole although its last line has no end [s]. Chosen: whoever writes a log
does so more often."""
_MARK = b"\xef\xbb\xbf"
"""Of UTF-8, which some editors put in front of a file."""
_OTHER_MARKS = (b"\xff\xfe", b"\xfe\xff")
"""Of UTF-16 and UTF-32, which PowerShell writes."""
_UNREADABLE = (OSError, EOFError, zlib.error, csv.Error)
"""What reading a file ends with that is broken as a whole."""


@dataclass(frozen=True, slots=True)
class Raw:
    """A record as it stands in a file.

    Attributes:
        content: text of JSON, or an object that was read already.
        line: where it begins, from 1; of several on one line, each the next number, so that they
            can be told apart.
        end: where reading goes on after it: a byte of a file of lines, else a number of records.
        is_torn: whether the file ends in the middle of it, so that it may still be being written.
    """

    content: object
    line: int
    end: int
    is_torn: bool = False


def find_files(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """Files that are named, and in folders all that look like logs, in order; each once.

    Raises:
        FileError: one is not there, or a folder has none.
    """
    try:
        return _found(paths)
    except OSError as error:  # a name that is too long, a folder that is closed
        raise FileError(
            need="files or folders of logs", got=str(error), hint="check the spelling"
        ) from error


def _found(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and _is_log(p))
            if not inside:
                raise FileError(
                    need=f"a folder with logs: {', '.join(sorted(_SUFFIXES))}, or .gz of them",
                    got=f"{path} without any",
                    hint="name the files themselves if they are called otherwise",
                )
            found += inside
        elif path.is_file():
            found.append(path)
        elif path.exists():
            raise FileError(
                need="files that can be read from their start again",
                got=f"{path}, which is none",
                hint="write what comes out of a pipe to a file first",
            )
        else:
            raise FileError(
                need="files or folders of logs", got=f"no {path}", hint="check the spelling"
            )
    once: dict[Path, Path] = {}
    for path in found:
        once.setdefault(path.resolve(), path)
    return tuple(once.values())


def _is_log(path: Path) -> bool:
    name = Path(path.stem) if path.suffix == ".gz" else path
    return name.suffix in _SUFFIXES


def _open(path: Path) -> BinaryIO:
    try:
        return cast("BinaryIO", gzip.open(path) if path.suffix == ".gz" else path.open("rb"))
    except OSError as error:
        raise FileError(
            need="a file that can be read", got=f"{path}: {error.strerror}", hint=""
        ) from error


def file_head(path: Path, num_bytes: int = _HEAD_BYTES) -> tuple[str, int]:
    """Digest of a file's first bytes, and how many there were.

    Raises:
        FileError: the file cannot be read, or is no text in UTF-8.
    """
    try:
        with _open(path) as file:
            head = file.read(num_bytes)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    if head.startswith(_OTHER_MARKS):
        raise FileError(
            need="text in UTF-8",
            got=f"{path}: it begins with the mark of UTF-16",
            hint="iconv -f UTF-16 -t UTF-8 makes a copy that can be read",
        )
    return hashlib.sha256(head).hexdigest()[:16], len(head)


def read_raw(path: Path, *, position: int = 0, line: int = 0, table: bool = False) -> Iterator[Raw]:
    """Records of a file from a position on.

    Args:
        path: which.
        position: the end of the last record that was read before.
        line: lines before it.
        table: whether it is rows of comma-separated values with a first row of names.

    Raises:
        FileError: the file cannot be read.
    """
    try:
        if table:
            yield from _rows(path, position)
        elif _is_lines(path):
            yield from _lines(path, position, line)
        else:
            yield from _elements(path, position)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> FileError:
    return FileError(
        need="a file that can be read",
        got=f"{path}: {error}",
        hint="what was read of it before stays in the ledger; is it whole?",
    )


def _is_lines(path: Path) -> bool:
    """Whether each line is a record, and not a part of one or of an array."""
    with _open(path) as file:
        first = next((line for line in file if line.strip(_BLANK)), b"").lstrip(_BLANK)
        if first.startswith(b"["):
            return False
        if not first.strip() or _is_json(first):
            return True
        file.seek(0)
        text = file.read().decode("utf-8", "backslashreplace").strip(" \t\r\n\ufeff")
        try:
            json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError):
            # A line that is broken among others, or an object over several lines that is.
            file.seek(0)
            return any(line.startswith(b"{") and _is_json(line) for line in file)
    return False  # an object over several lines


_BLANK = b" \t\r\n" + _MARK


def _is_json(text: str | bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _lines(path: Path, position: int, number: int) -> Iterator[Raw]:
    with _open(path) as file:
        file.seek(position)
        end = position
        for line in file:
            number += 1
            text = (line.removeprefix(_MARK) if end == 0 else line).decode(
                "utf-8", "backslashreplace"
            )
            if not line.endswith(b"\n") and text.strip() and not _is_json(text):
                yield Raw(text, number, end, is_torn=True)
                return
            end += len(line)
            if text.strip():
                yield Raw(text, number, end)


def _rows(path: Path, position: int) -> Iterator[Raw]:
    with _open(path) as file:
        last = b""

        def text() -> Iterator[str]:
            nonlocal last
            for last in file:
                yield last.decode("utf-8-sig", "backslashreplace")

        # Of a number that ends with the file nobody can tell whether digits are to follow, unless
        # nothing has been written for a while.
        age_s = time.time() - path.stat().st_mtime
        is_written = path.suffix != ".gz" and 0.0 <= age_s < QUIET_S
        reader = csv.DictReader(text())
        for number, row in enumerate(reader, start=1):
            is_torn = is_written and not last.endswith(b"\n")
            if number > position:
                yield Raw({"#": number, **row}, reader.line_num, number, is_torn)


def table_columns(path: Path) -> tuple[str, ...]:
    """Names of a table's columns; none of an empty file.

    Raises:
        FileError: the file cannot be read, or is no text in UTF-8.
    """
    file_head(path)
    try:
        with _open(path) as file:
            lines: Iterable[str] = (line.decode("utf-8-sig", "backslashreplace") for line in file)
            return tuple(csv.DictReader(lines).fieldnames or ())
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _elements(path: Path, position: int) -> Iterator[Raw]:
    """Values one after another, or in an array.

    What follows a broken one is one broken record, which is read again next time: a file that is
    being written is an array without an end.
    """
    with _open(path) as file:
        text = file.read().decode("utf-8", "backslashreplace")
    decoder = json.JSONDecoder()
    at, line, counted, before = 0, 1, 0, 0
    for number in range(1, len(text) + 2):
        while at < len(text) and text[at] in " \t\r\n,[]\ufeff":
            at += 1
        if at == len(text):
            return
        line += text.count("\n", counted, at)
        counted = at
        before = max(line, before + 1)
        is_torn = False
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            value, at, is_torn = text[at:], len(text), True
        if number > position:
            yield Raw(value, before, number - 1 if is_torn else number, is_torn)
