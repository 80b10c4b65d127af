"""Files of logs into a ledger: in batches, whole or not at all, from where the last run ended.

Every record of a file becomes a call, is a duplicate of one, is of something else than a call, or
is kept aside with the reason why it could not be read. Nothing is lost or counted twice.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from weft.core.errors import FileError
from weft.tokens.adapters.table import Columns
from weft.tokens.ledger.ledger import Bad, Ledger, Progress
from weft.tokens.ledger.parsing import Parsed, Reading, parse
from weft.tokens.ledger.records import Raw, file_head, find_files, read_raw, table_columns
from weft.tokens.ledger.schema import plain_text

__all__ = ["Ingested", "ingest"]

_BATCH = 10_000
"""Records of a transaction: enough that its end costs nothing, few enough that a kill repeats
little. Chosen."""
_SHOWN = 3
"""Records kept aside that are told at once. Chosen."""
_WORTH_PROCESSES_BYTES = 16 * 2**20
"""Below this, starting processes takes longer than they save. Chosen."""

_Parse: TypeAlias = Callable[[str, Sequence[Raw], Reading], "Future[Parsed]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """What one run of reading did.

    Attributes:
        files: that were read, those without anything new among them.
        records: that were read.
        calls: that are new in the ledger.
        duplicates: calls that were there already.
        ignored: records that are about something else than a call.
        quarantined: records that were kept aside.
        bad: the first of them.
    """

    files: int = 0
    records: int = 0
    calls: int = 0
    duplicates: int = 0
    ignored: int = 0
    quarantined: int = 0
    bad: tuple[Bad, ...] = field(default=(), compare=False)


def ingest(
    ledger: Ledger,
    paths: Iterable[str | Path],
    *,
    form: str = "",
    columns: Columns | None = None,
    at: float | None = None,
    processes: int | None = None,
    tell: Callable[[str, float], None] = lambda _path, _share: None,
) -> Ingested:
    """Read files of logs into a ledger.

    Args:
        ledger: to write to.
        paths: files, and folders of them: JSON lines, arrays, OTLP, tables; also with .gz.
        form: the format of all records; empty to find out of each.
        columns: what the columns are, of tables.
        at: the time of calls that have none [s since 1970].
        processes: that parse beside this one, which writes; one for each processor if None.
        tell: called with a file and the share of it that was read.

    Returns:
        What was done.

    Raises:
        FileError: a file is missing, or the ledger cannot be written to; or a file cannot be read,
            after all others were.
        InputError: the format is none, or a table lacks a column.
    """
    files = find_files(tuple(map(Path, paths)))
    reading = Reading(form=form, columns=columns, at=at, now=time.time())
    if columns is not None:
        for path in files:
            columns.check(table_columns(path), str(path))
    total = Ingested(files=len(files))
    unread: list[FileError] = []
    with ExitStack() as stack:
        submit = _here
        size = sum(path.stat().st_size for path in files)
        wanted = os.cpu_count() or 1 if processes is None else processes
        if wanted > 1 and size >= _WORTH_PROCESSES_BYTES:
            submit = _in(stack.enter_context(_pool(wanted)))
        for path in files:
            try:
                more = _ingest_file(ledger, path, reading, submit, wanted + 1, tell)
            except FileError as error:
                unread.append(error)
            except sqlite3.Error as error:
                raise FileError(
                    need="a ledger that can be written to",
                    got=f"{ledger.path}: {error}",
                    hint="what was written stays; the same command goes on where it ended",
                ) from error
            else:
                total = _added(total, more)
    if unread:
        raise _left(unread, total)
    return total


def _left(unread: Sequence[FileError], total: Ingested) -> FileError:
    """That some files could not be read, after the others were."""
    first, others = unread[0], total.files - len(unread)
    got = first.got + (f", and {len(unread) - 1} files more" if len(unread) > 1 else "")
    if others:
        got += f"; of {others} others {total.calls} new calls were read"
    return FileError(need=first.need, got=got, hint=first.hint)


def _pool(wanted: int) -> ProcessPoolExecutor:
    """Processes that a Ctrl-C does not reach: this one ends them in order."""
    # Started anew: a process that is forked shares locks of threads that it has not.
    pool = ProcessPoolExecutor(wanted, mp_context=multiprocessing.get_context("spawn"))
    if threading.current_thread() is not threading.main_thread():
        return pool  # which may not change what signals do
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # and so do processes started now
    try:
        for _ in range(wanted):
            pool.submit(time.time)
    finally:
        signal.signal(signal.SIGINT, before)
    return pool


def _here(path: str, raws: Sequence[Raw], reading: Reading) -> Future[Parsed]:
    done: Future[Parsed] = Future()
    done.set_result(parse(path, raws, reading))
    return done


def _in(pool: ProcessPoolExecutor) -> _Parse:
    return lambda path, raws, reading: pool.submit(parse, path, raws, reading)


def _ingest_file(
    ledger: Ledger,
    path: Path,
    reading: Reading,
    submit: _Parse,
    ahead: int,
    tell: Callable[[str, float], None],
) -> Ingested:
    start = _where(ledger, path)
    ledger.forget(start.path, from_line=start.line)
    raws = read_raw(
        path,
        position=start.position,
        line=start.line,
        table=reading.columns is not None,
    )
    size, progress, quarantined = max(1, path.stat().st_size), start, 0
    shown: list[Bad] = []
    for batch, parsed in _parsed(start.path, raws, reading, submit, ahead):
        whole = [raw for raw in batch if not raw.is_torn]
        progress = ledger.write_batch(
            parsed.rows,
            parsed.bad,
            replace(
                progress,
                position=whole[-1].end if whole else progress.position,
                line=whole[-1].line if whole else progress.line,
                records=progress.records + len(whole),
                ignored=progress.ignored + parsed.ignored,
            ),
        )
        quarantined += len(parsed.bad)
        shown += parsed.bad[: _SHOWN - len(shown)]
        tell(str(path), min(1.0, progress.position / size))
    return Ingested(
        records=progress.records - start.records,
        calls=progress.calls - start.calls,
        duplicates=progress.duplicates - start.duplicates,
        ignored=progress.ignored - start.ignored,
        quarantined=quarantined,
        bad=tuple(shown),
    )


def _where(ledger: Ledger, path: Path) -> Progress:
    """How far a file was read, if it still begins as it did then.

    A file that has become shorter is another one. One of which nothing could be read is read anew:
    by another format, perhaps.
    """
    name = plain_text(str(path.resolve()))
    before = ledger.progress(name)
    if before is not None and before.calls + before.duplicates + before.ignored:
        is_there = path.suffix == ".gz" or before.position <= path.stat().st_size
        if is_there and file_head(path, before.head_bytes) == (before.head, before.head_bytes):
            return before
    head, num_bytes = file_head(path)
    return Progress(path=name, head=head, head_bytes=num_bytes)


def _parsed(
    path: str, raws: Iterator[Raw], reading: Reading, submit: _Parse, ahead: int
) -> Iterator[tuple[list[Raw], Parsed]]:
    """Batches in the order of the file, some of them parsed ahead."""
    under_way: deque[tuple[list[Raw], Future[Parsed]]] = deque()
    while batch := list(islice(raws, _BATCH)):
        under_way.append((batch, submit(path, batch, reading)))
        if len(under_way) >= ahead:
            first, done = under_way.popleft()
            yield first, done.result()
    for first, done in under_way:
        yield first, done.result()


def _added(total: Ingested, more: Ingested) -> Ingested:
    return Ingested(
        files=total.files,
        records=total.records + more.records,
        calls=total.calls + more.calls,
        duplicates=total.duplicates + more.duplicates,
        ignored=total.ignored + more.ignored,
        quarantined=total.quarantined + more.quarantined,
        bad=(*total.bad, *more.bad)[:_SHOWN],
    )
