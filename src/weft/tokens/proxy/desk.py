"""The desk where calls are begun and ended: budgets, ledger, and what is in flight.

    begin    reserve, and write the call down as in flight; the request may then be sent
    end      write down what came of it; the end of the answer may then be sent
             settle, together with the next calls that begin; then book, many at once

Nobody is told that something is done before it is where a kill does not reach it, so that what a
client has seen the end of is not lost, whatever happens to the process then: it is settled and
booked by the next that starts. What is not settled yet is still held, hence never overspent. Where
nothing in flight can be written down, since there is no ledger to write beside, or where a power
cut is to be survived, an end is settled and booked before it is told.

All of it happens in the event loop as long as nobody else is at the files; otherwise, and whatever
waits for the disc, in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from weft.core.errors import FileError, WeftError
from weft.tokens.budgets.budget import Budget
from weft.tokens.budgets.node import lineage
from weft.tokens.budgets.records import Account, Handle, Settled
from weft.tokens.budgets.refusal import HandleError
from weft.tokens.call import Call
from weft.tokens.money import Money
from weft.tokens.proxy.booking import Booking
from weft.tokens.proxy.flying import Flying, left_behind, removed
from weft.tokens.proxy.grouped import BusyError, GroupedStore

__all__ = ["Begin", "Begun", "Desk", "End", "Ended"]

T = TypeVar("T")

SOON_S = 0.02
"""How long an end waits for a begin to share a transaction with [s]. Chosen: what is given back
that late is not missed."""
BOOK_S = 0.1
"""How long ends wait to be booked together [s]. Chosen: the ledger is read by people."""
RECOVER_S = 30.0
"""How often handles of dead processes are looked for [s]. Chosen: a quarter of a lease."""
LATE_S = 0.5
"""How soon what could not be written is tried again [s]. Chosen."""

_THREADS = ("budgets", "ledger", "rounds")
_log = logging.getLogger("weft.proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """A call to be made.

    Attributes:
        node: that pays.
        least, most: to reserve.
        worst: the call as it is if nothing more is heard of it, by what was granted, in weft's own
            words (`weft.tokens.adapters.call_plain`).
    """

    node: str
    least: Sequence[Money]
    most: Sequence[Money]
    worst: Callable[[Handle], Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A call that may be made: its handle, and where those stand who pay for it."""

    handle: Handle
    accounts: tuple[Account, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """A call that was made, or not.

    Attributes:
        handle: under which it was begun.
        spent: what it cost; None if nothing was spent.
        call: what the ledger is to hold.
        lie: why the provider's word was not taken, and its words; None if it was.
    """

    handle: Handle
    spent: Sequence[Money] | None
    call: Call
    lie: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A call that is settled, and where those stand who paid for it."""

    settled: Settled
    accounts: tuple[Account, ...]


_Task = Begin | End | Callable[[], object]


@dataclass(frozen=True, slots=True)
class _Job:
    task: _Task
    answer: asyncio.Future[object] | None = None


class Desk:
    """See the module.

    Args:
        budget: what is spent from.
        store: where it is kept, if that can do several things at once.
        in_loop: whether it is quick enough to be asked in the event loop.
        ledger: file of the ledger; None to keep none.
        place: name of the proxy, under which the ledger counts what it booked.
        durable: whether everything waits for the disc.
        settled: called with each call that was settled.
    """

    def __init__(
        self,
        budget: Budget,
        store: GroupedStore | None = None,
        *,
        in_loop: bool = True,
        ledger: str | Path | None = None,
        place: str = "proxy",
        durable: bool = False,
        settled: Callable[[Ended], None] = lambda _: None,
    ) -> None:
        self._budget, self._store = budget, store
        self._ledger, self._durable, self._settled = ledger, durable, settled
        self._is_lazy = ledger is not None and not durable
        self._in_loop = in_loop and not durable
        self._booking = None if ledger is None else Booking(ledger, place, durable=durable)
        self._flying: Flying | None = None
        self._begins: list[_Job] = []
        self._ends: list[_Job] = []
        self._unbooked: list[_Job] = []
        self._flush_next: asyncio.Handle | None = None
        self._flush_later: asyncio.Handle | None = None
        self._book_at: asyncio.TimerHandle | None = None
        self._is_busy = self._is_booking = False
        self._threads = {name: ThreadPoolExecutor(1, name) for name in _THREADS}
        self._rounds: asyncio.Task[None] | None = None
        self._troubles: dict[str, str] = {}
        self.found = 0
        """Calls of killed processes that were met when it was opened."""

    @property
    def trouble(self) -> str:
        """What cannot be written, in words; empty if all is well."""
        return "; ".join(self._troubles.values())

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def open(self) -> None:
        """Start: see to what killed processes left behind.

        Raises:
            FileError: the ledger cannot be opened.
        """
        if self._booking is not None and self._ledger is not None:
            await self._in_thread("ledger", self._booking.open)
            await self._in_thread("ledger", lambda: self._pick_up(self._ledger or ""))
            self._flying = Flying(self._ledger, durable=self._durable)
        self._rounds = asyncio.create_task(self._go_round())

    def _in_thread(self, name: str, work: Callable[[], T]) -> asyncio.Future[T]:
        return self._loop.run_in_executor(self._threads[name], work)

    def _pick_up(self, ledger: str | Path) -> None:
        """Settle and book what killed processes left behind."""
        assert self._booking is not None
        files = left_behind(ledger)
        for own in (own for each in files.values() for own in each):
            if own.handle:
                with suppress(HandleError):  # that was done before they were killed
                    if own.spent is None:
                        self._budget.release(own.handle)
                    else:
                        self._budget.settle(own.handle, _money(own.spent))
            self._booking.book([(own.call, own.lie)], again=True)
            self.found += 1
        removed(files)

    async def close(self) -> None:
        """Do what still waits, and end."""
        if self._rounds is not None:
            self._rounds.cancel()
        patience = 100
        while self._is_at_work and patience:
            self._flush()
            self._book()
            patience -= bool(self.trouble)
            await asyncio.sleep(0.01)
        if self._flying is not None:
            self._flying.close()
        if self._booking is not None:
            await self._in_thread("ledger", self._booking.close)
        for pool in self._threads.values():
            pool.shutdown()
        self._budget.close()

    @property
    def _is_at_work(self) -> bool:
        waiting = self._begins or self._ends or self._unbooked
        return bool(waiting) or self._is_busy or self._is_booking

    def begin(self, call: Begin) -> asyncio.Future[Begun]:
        """Reserve for a call; raises what `Budget.reserve` does."""
        answer = self._asked(self._begins, call)
        self._soon(0.0)
        return cast("asyncio.Future[Begun]", answer)

    def end(self, call: End) -> asyncio.Future[object] | None:
        """Settle and book a call; None if what came of it is safe already."""
        if self._is_lazy and self._flying is not None:
            spent = None if call.spent is None else {m.currency: m.nano for m in call.spent}
            try:
                self._flying.ended(call.call, call.handle.id, spent, call.lie)
            except FileError as error:
                self._troubled("flying", error)
            self._ends.append(_Job(call))
            self._soon(SOON_S)
            return None
        answer = self._asked(self._ends, call)
        self._soon(0.0)
        return answer

    def ask(self, question: Callable[[Budget], T]) -> asyncio.Future[T]:
        """Ask the budget something, in a thread."""
        return self._in_thread("rounds", lambda: question(self._budget))

    def accounts(self, node: str) -> asyncio.Future[tuple[Account, ...]]:
        """Where those stand who pay for a node."""
        return self.ask(lambda _: self._accounts(node))

    def _asked(self, jobs: list[_Job], task: _Task) -> asyncio.Future[object]:
        answer: asyncio.Future[object] = self._loop.create_future()
        jobs.append(_Job(task, answer))
        return answer

    def _soon(self, seconds: float) -> None:
        """Flush at least so soon."""
        if not seconds and self._flush_next is None:
            self._flush_next = self._loop.call_soon(self._flush)
        elif seconds and self._flush_later is None and self._flush_next is None:
            self._flush_later = self._loop.call_later(seconds, self._flush)

    def _flush(self) -> None:
        """Settle and reserve what waits, in one transaction."""
        for handle in (self._flush_next, self._flush_later):
            if handle is not None:
                handle.cancel()
        self._flush_next = self._flush_later = None
        if self._is_busy or not (self._begins or self._ends):
            return
        # What is given back first can be reserved by others.
        jobs = self._ends + self._begins
        self._ends, self._begins = [], []
        if self._in_loop:
            try:
                self._told(jobs, self._work(jobs, waits=False))
            except BusyError:
                pass
            else:
                return
        self._is_busy = True
        work = self._in_thread("budgets", lambda: self._work(jobs, waits=True))
        work.add_done_callback(lambda done: self._worked(jobs, done))

    def _worked(self, jobs: Sequence[_Job], done: asyncio.Future[list[object]]) -> None:
        self._is_busy = False
        error = done.exception()
        self._told(jobs, done.result() if error is None else [error] * len(jobs))
        self._soon(0.0)

    def _work(self, jobs: Sequence[_Job], *, waits: bool) -> list[object]:
        """What came of each, an error if that is it."""
        acts = [self._act(job.task) for job in jobs]
        results: list[object]
        if self._store is not None:
            try:
                results = list(self._store.group(acts, waits=waits))
            except BusyError:
                raise
            except Exception as error:
                return [error] * len(jobs)
        else:
            results = [_result(act) for act in acts]
        return self._written_down(jobs, results)

    def _act(self, task: _Task) -> Callable[[], object]:
        if isinstance(task, Begin):
            return lambda: self._reserved(task)
        return (lambda: self._ended(task)) if isinstance(task, End) else task

    def _reserved(self, call: Begin) -> Begun:
        handle = self._budget.reserve(call.node, call.least, most=call.most)
        return Begun(handle=handle, accounts=self._accounts(call.node))

    def _ended(self, call: End) -> Ended:
        if call.spent is None:
            settled = self._budget.release(call.handle)
        else:
            settled = self._budget.settle(call.handle, call.spent)
        return Ended(settled=settled, accounts=self._accounts(call.handle.node))

    def _accounts(self, node: str) -> tuple[Account, ...]:
        if self._store is not None:
            return tuple(self._store.some_accounts(lineage(node), time.time()))
        return tuple(
            Account(
                node=own.node,
                unit=own.cap.most.currency,
                window=own.cap.window,
                cap=own.cap.most.nano,
                held=own.held.nano,
                spent=own.spent.nano,
                flying=own.flying,
            )
            for own in self._budget.standing(node)
        )

    def _written_down(self, jobs: Sequence[_Job], results: list[object]) -> list[object]:
        """Calls that were begun, as in flight; if that fails, they are not made."""
        if self._flying is None:
            return results
        begun = [
            (place, job.task.worst(result.handle))
            for place, (job, result) in enumerate(zip(jobs, results, strict=True))
            if isinstance(job.task, Begin) and isinstance(result, Begun)
        ]
        if not begun:
            return results
        try:
            self._flying.began(call for _, call in begun)
        except FileError as error:
            for place, _ in begun:
                result = results[place]
                if isinstance(result, Begun):
                    with suppress(WeftError):
                        self._budget.release(result.handle)
                results[place] = error
        return results

    def _told(self, jobs: Sequence[_Job], results: Sequence[object]) -> None:
        """Tell everybody, and keep what has to be tried again."""
        self._troubles.pop("budgets", None)
        late: list[_Job] = []
        settled: list[Ended] = []
        for job, result in zip(jobs, results, strict=True):
            is_end, is_trouble = isinstance(job.task, End), _is_trouble(result)
            if is_trouble:
                self._troubled("budgets", result)
            if is_end and is_trouble:
                late.append(_Job(job.task))
            elif is_end:
                # Also where the handle is not open any more: the call was made.
                self._unbooked.append(job if self._booking is not None else _Job(job.task))
            if isinstance(result, Ended):
                settled.append(result)
            if job.answer is not None and (is_trouble or not is_end or self._booking is None):
                _answer(job.answer, result)
        if settled:
            self._loop.call_soon(self._note, settled)  # after those who were answered
        if late:
            self._ends = late + self._ends
            self._soon(LATE_S)
        if not self._is_lazy:
            self._book()
        elif self._unbooked and self._book_at is None:
            self._book_at = self._loop.call_later(BOOK_S, self._book)

    def _note(self, ended: Sequence[Ended]) -> None:
        for own in ended:
            self._settled(own)

    def _book(self) -> None:
        """Book what was settled, in a thread."""
        if self._book_at is not None:
            self._book_at.cancel()
            self._book_at = None
        if self._booking is None:
            self._unbooked = []
        if self._is_booking or not self._unbooked:
            return
        jobs, self._unbooked = self._unbooked, []
        booking = cast("Booking", self._booking)
        rows = [(own.task.call, own.task.lie) for own in jobs if isinstance(own.task, End)]
        self._is_booking = True
        work = self._in_thread("ledger", lambda: booking.book(rows))
        work.add_done_callback(lambda done: self._booked(jobs, done))

    def _booked(self, jobs: Sequence[_Job], done: asyncio.Future[None]) -> None:
        self._is_booking = False
        error = done.exception()
        if error is not None:
            self._troubled("ledger", error)
            self._unbooked = [*(_Job(own.task) for own in jobs), *self._unbooked]
        else:
            self._troubles.pop("ledger", None)
            self._troubles.pop("flying", None)
            self._forget(jobs)
        for job in jobs:
            if job.answer is not None:
                _answer(job.answer, error)
        if error is None and self._unbooked:
            self._book()

    def _forget(self, jobs: Sequence[_Job]) -> None:
        """What is settled and booked need not be kept as in flight."""
        if self._flying is not None:
            with suppress(FileError):  # the file that is there holds
                self._flying.drop(own.task.call.id for own in jobs if isinstance(own.task, End))

    async def _go_round(self) -> None:
        """See to what nobody asks for: dead processes, the journal, what could not be written."""
        recovered = -RECOVER_S
        while True:
            try:
                if time.monotonic() - recovered >= RECOVER_S:
                    recovered = time.monotonic()
                    await self.ask(lambda budget: budget.recover())
                if self._store is not None:
                    await self._in_thread("rounds", self._store.checkpoint)
            except (WeftError, sqlite3.Error) as error:
                self._troubled("rounds", error)
            else:
                self._troubles.pop("rounds", None)
            self._book()
            await asyncio.sleep(LATE_S)

    def _troubled(self, where: str, error: object) -> None:
        self._troubles[where] = " ".join(str(error).split())
        _log.error("cannot write: %s", self._troubles[where])


def _money(amounts: dict[str, int]) -> tuple[Money, ...]:
    return tuple(Money(nano, unit) for unit, nano in amounts.items())


def _result(act: Callable[[], object]) -> object:
    try:
        return act()
    except Exception as error:
        return error


def _is_trouble(result: object) -> bool:
    """Whether something else than a refusal went wrong, so that it is worth trying again."""
    return isinstance(result, FileError) or (
        isinstance(result, BaseException) and not isinstance(result, WeftError)
    )


def _answer(answer: asyncio.Future[object], result: object) -> None:
    if answer.done():
        return
    if isinstance(result, BaseException):
        answer.set_exception(result)
    else:
        answer.set_result(result)
