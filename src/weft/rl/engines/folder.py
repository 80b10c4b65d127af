"""A folder is one run's for as long as its process lives, and its records tell of one life.

Two runs that write to one folder would mix their records and undo each other's checkpoints. The
system lets go of the lock when a process ends, however it ends, so nothing has to be cleared away.
Where a run goes on from a checkpoint, records of later steps are taken back: they will be taken
again.
"""

from __future__ import annotations

import fcntl
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from weft.core.errors import FileError
from weft.core.files import write_whole
from weft.core.records import read_records

__all__ = ["RECORDS", "alone_in", "take_back"]

LOCK, RECORDS = "lock", "records.jsonl"


@contextmanager
def alone_in(folder: Path) -> Generator[None]:
    """Keep other runs out of a folder.

    Raises:
        FileError: another run is in it, or it cannot be written to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name, alone_in(Path(name)):
        ...     pass
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a")
    except OSError as error:
        raise FileError(
            need="a folder for the run that can be written to",
            got=f"{folder}: {error.strerror}",
            hint="name another with -o",
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FileError(
                need="a folder that no other run is writing to",
                got=f"{folder}, which a running process holds",
                hint="wait for it, end it, or name another folder with -o",
            ) from error
        yield


def take_back(records: Path, step: int) -> None:
    """Drop records of steps that a checkpoint of `step` does not know."""
    kept = [
        record.to_json() + "\n"
        for record in read_records(records)
        if record.kind != "rl-step" or int(str(record.fields["step"])) <= step
    ]
    write_whole(records, "".join(kept), "records")
