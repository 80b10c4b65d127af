"""Calls in flight, on file: what was begun, and what came of it, until budget and ledger have it.

Before a request is sent, a line says what the call is if nothing more is heard of it; before an
answer's end is sent, another says what came of it. Lines survive a process that is killed. Files
lie in a folder beside the ledger, one for each process, which holds a lock on it as long as it
lives. Whoever starts next to the same ledger settles and books what dead processes left behind.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from weft.core.errors import FileError, WeftError
from weft.tokens.adapters.own import call_plain, own_calls
from weft.tokens.call import Call

__all__ = ["Flying", "Left", "left_behind", "removed"]

LARGEST_BYTES = 16 * 2**20
"""Of a file, before it is begun anew with what is still in flight. Chosen."""
SUFFIX = ".flying"


class Flying:
    """The file of one process.

    Args:
        ledger: path of the ledger.
        durable: whether each line waits for the disc.

    Raises:
        FileError: it cannot be made.
    """

    def __init__(self, ledger: str | Path, *, durable: bool = False) -> None:
        self._folder = Path(f"{ledger}{SUFFIX}")
        self._durable = durable
        self._lines: dict[str, bytes] = {}
        self._file: FileIO | None = None
        self._path = self._folder
        self._size = 0
        self._begin()

    def began(self, calls: Iterable[Mapping[str, Any]]) -> None:
        """Write down, before they are made, what calls are if nothing more is heard of them.

        Args:
            calls: in weft's own words, as of `call_plain`.

        Raises:
            FileError: that fails.
        """
        new = {str(own["id"]): json.dumps({"call": own}).encode() + b"\n" for own in calls}
        self._lines |= new
        self._write(b"".join(new.values()))

    def ended(
        self, call: Call, handle: str, spent: dict[str, int] | None, lie: tuple[str, str] | None
    ) -> None:
        """Write down what came of one.

        Args:
            call: as the ledger is to have it.
            handle: to be settled.
            spent: by unit; None if nothing was.
            lie: why the provider's report is not believed, and what it says.

        Raises:
            FileError: that fails.
        """
        plain = {"call": call_plain(call), "handle": handle, "spent": spent, "lie": lie}
        line = json.dumps(plain).encode() + b"\n"
        self._lines[call.id] = line
        self._write(line)

    def drop(self, ids: Iterable[str]) -> None:
        """Forget calls that budget and ledger have.

        Raises:
            FileError: a new file cannot be made; the old one holds.
        """
        for own in ids:
            self._lines.pop(own, None)
        if self._size > LARGEST_BYTES:
            self._begin()

    def close(self) -> None:
        """End; the file is removed unless something is still in flight."""
        if self._file is not None:
            if not self._lines:
                self._path.unlink(missing_ok=True)
            self._file.close()
            self._file = None
        with suppress(OSError):  # others may be at work in it
            self._folder.rmdir()

    def _begin(self) -> None:
        """A new file with what is in flight, and then no more of the old one."""
        before, old = self._file, self._path
        path = self._folder / f"{uuid.uuid4().hex}.jsonl"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = FileIO(path, "xb")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise _unwritable(path, error) from error
        self._file, self._path, self._size = file, path, 0
        self._write(b"".join(self._lines.values()))
        if before is not None:
            old.unlink(missing_ok=True)
            before.close()

    def _write(self, lines: bytes) -> None:
        assert self._file is not None
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[self._file.write(rest) :]
            if self._durable:
                os.fsync(self._file)
        except OSError as error:
            raise _unwritable(self._path, error) from error
        self._size += len(lines)


def _unwritable(path: Path, error: OSError) -> FileError:
    return FileError(
        need="a folder beside the ledger that can be written to",
        got=f"{path}: {error}",
        hint="is the disc full?",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A call of a process that was killed.

    Attributes:
        call: what is known of it.
        handle: to be settled; empty where it is not known what was spent.
        spent: by unit; None if nothing was.
        lie: see `Flying.ended`.
    """

    call: Call
    handle: str = ""
    spent: dict[str, int] | None = None
    lie: tuple[str, str] | None = None


def left_behind(ledger: str | Path) -> dict[Path, list[Left]]:
    """What processes that were killed have left, by file."""
    found: dict[Path, list[Left]] = {}
    for path in sorted(Path(f"{ledger}{SUFFIX}").glob("*.jsonl")):
        with suppress(OSError), path.open("rb") as file:
            # Fails where the process lives.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found[path] = list(_last_lines(file.read()).values())
    return found


def removed(paths: Iterable[Path]) -> None:
    """Remove files of which all is settled and booked."""
    for path in paths:
        path.unlink(missing_ok=True)


def _last_lines(text: bytes) -> dict[str, Left]:
    """The last that was said of each call."""
    found: dict[str, Left] = {}
    for line in text.split(b"\n"):
        # The last line may be torn: what it would say has not happened.
        with suppress(ValueError, WeftError, KeyError, TypeError):
            plain: dict[str, Any] = json.loads(line) if line else {}
            for call in own_calls(plain["call"], None) if plain else ():
                found[call.id] = Left(
                    call=call,
                    handle=plain.get("handle", ""),
                    spent=plain.get("spent"),
                    lie=None if plain.get("lie") is None else tuple(plain["lie"]),
                )
    return found
