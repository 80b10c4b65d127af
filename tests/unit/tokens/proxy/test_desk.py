"""What is begun is ended: also by others, after a kill, and when the files are in use."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.tokens.proxy.scripted import calls
from weft.core.errors import FileError
from weft.tokens import Call, Count, Money, Status, Usage, usd
from weft.tokens.adapters import call_plain
from weft.tokens.budgets import Budget, BudgetError, Cap, HandleError
from weft.tokens.budgets.records import Kind
from weft.tokens.proxy.desk import Begin, Desk, End
from weft.tokens.proxy.grouped import BusyError, GroupedStore


def call(name, status=Status.ABORTED, **usage):
    used = Usage.of(**usage) if usage else Usage.of(text=Count(0, 100), fresh=Count(0, 50))
    return Call(id=name, source="weft", at=1.0, model="m", status=status, usage=used)


def begin(name, cents=1):
    amount = (Money(cents * 10**7),)
    return Begin(node="", least=amount, most=amount, worst=lambda _: call_plain(call(name)))


def grouped(path, cap):
    Budget.open(path, cap=cap).close()
    store = GroupedStore(path)
    return Budget(store), store


operations = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "settle", "release", "extend", "other"]),
        st.integers(0, 40),
        st.integers(0, 3),
    ),
    max_size=30,
)


@settings(max_examples=25, deadline=None)
@given(groups=st.lists(operations, max_size=4))
def test_groups_do_what_single_operations_do(groups, tmp_path_factory):
    """The same on a file, one by one, is the oracle; the log explains the state of both."""
    folder = tmp_path_factory.mktemp("budgets")
    now = [1e9]
    books = []
    for name in ("one", "grouped"):
        path = folder / f"{name}.db"
        one = Budget.open(path, cap=usd(1), clock=lambda: now[0])
        one.add("a", Cap.of(usd("0.5"), "hourly"))
        if name == "grouped":
            one.close()
            one = Budget(GroupedStore(path), clock=lambda: now[0])
        books.append(one)
    handles = [[], []]

    def apply(place, what, size, which):
        budget, mine = books[place], handles[place]
        amount = Money(size * 10**7)
        try:
            if what == "reserve":
                mine.append(budget.reserve("a" if which else "", amount, most=amount * 2).id)
            elif what == "other" or not mine:
                return [own.left for own in budget.standing("a")]
            elif what == "settle":
                return budget.settle(mine[which % len(mine)], amount).overruns
            elif what == "release":
                budget.release(mine[which % len(mine)])
            else:
                return budget.extend(mine[which % len(mine)], amount).held
        except (BudgetError, HandleError) as error:
            return str(error).replace(mine[which % len(mine)] if mine else "-", "handle")
        return what

    for group in groups:
        now[0] += 1800.0
        singly = [apply(0, *step) for step in group]
        work = [lambda step=step: apply(1, *step) for step in group]
        together = books[1]._store.group(work, waits=True)
        assert singly == together
        assert books[0].standings() == books[1].standings()
    for budget in books:
        budget.verify()
        budget.close()


def test_a_group_sees_what_others_wrote_in_between(tmp_path):
    path = tmp_path / "b.db"
    budget, store = grouped(path, usd(1))
    other = Budget.open(path)
    store.group([lambda: budget.reserve("", usd("0.5"))], waits=True)
    other.reserve("", usd("0.4"))
    (refused,) = store.group([lambda: budget.reserve("", usd("0.2"))], waits=True)
    assert isinstance(refused, BudgetError) and refused.left == usd("0.1")
    (held,) = store.group([lambda: budget.reserve("", usd("0.1"))], waits=True)
    assert other.settle(held.id, usd("0.1")).spent == (usd("0.1"),)
    (gone,) = store.group([lambda: budget.settle(held, usd("0.1"))], waits=True)
    assert isinstance(gone, HandleError)
    assert budget.verify() == other.verify()
    budget.close()
    other.close()


def test_nothing_of_a_group_stays_that_fails(tmp_path):
    budget, store = grouped(tmp_path / "b.db", usd(1))

    def broken():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.group([lambda: budget.reserve("", usd("0.5")), broken], waits=True)
    assert budget.standing()[0].held == usd(0)
    assert budget.reserve("", usd(1)).most == usd(1)
    budget.verify()
    budget.close()


def test_who_does_not_wait_is_told_that_others_are_at_the_file(tmp_path):
    path = tmp_path / "b.db"
    budget, store = grouped(path, usd(1))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BusyError):
        store.group([lambda: budget.reserve("", usd("0.5"))], waits=False)
    other.execute("COMMIT")
    store.group([lambda: budget.reserve("", usd("0.5"))], waits=False)
    other.close()
    store.checkpoint()
    budget.close()


def test_a_desk_waits_in_a_thread_while_others_are_at_the_file(tmp_path):
    async def run():
        budget, store = grouped(tmp_path / "b.db", usd(1))
        desk = Desk(budget, store, ledger=tmp_path / "ledger.db")
        await desk.open()
        other = sqlite3.connect(tmp_path / "b.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        waiting = desk.begin(begin("c"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        other.execute("ROLLBACK")
        other.close()
        begun = await waiting
        end = End(handle=begun.handle, spent=(usd("0.005"),), call=call("c", Status.DONE, text=5))
        assert desk.end(end) is None
        await desk.close()

    asyncio.run(run())
    (booked,), _ = calls(tmp_path)
    assert booked.usage.output == Count(5, 5)
    assert Budget.open(tmp_path / "b.db").standing()[0].spent == usd("0.005")


KILLED = """
import asyncio, os, signal, sys
from tests.unit.tokens.proxy.test_desk import *
async def main():
    budget, store = grouped("b.db", usd(1))
    desk = Desk(budget, store, ledger="ledger.db")
    await desk.open()
    for name in "abc":
        begun = await desk.begin(begin(name))
        if name != "c":
            lie = ("need sense; got none", "{}") if name == "b" else None
            spent = None if name == "b" else (usd("0.004"),)
            done = call(name, Status.DONE, text=4)
            assert desk.end(End(handle=begun.handle, spent=spent, call=done, lie=lie)) is None
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


def test_after_a_kill_the_next_settles_and_books_what_was_ended(tmp_path):
    """Of three calls, one was paid for, one cost nothing and was lied about, one is in flight."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    (file,) = (tmp_path / "ledger.db.flying").glob("*.jsonl")
    with file.open("ab") as torn:
        torn.write(b'{"call": {"weft": "call", "id": "d"')
    later = [0.0]

    async def again():
        store = GroupedStore(tmp_path / "b.db")
        clock = lambda: __import__("time").time() + later[0]  # noqa: E731
        desk = Desk(Budget(store, clock=clock), store, ledger=tmp_path / "ledger.db")
        await desk.open()
        found = desk.found
        (standing,) = await desk.ask(lambda budget: budget.standings())
        if later[0]:
            await desk.ask(lambda budget: budget.recover())
            (standing,) = await desk.ask(lambda budget: budget.standings())
        await desk.close()
        return found, standing

    found, standing = asyncio.run(again())
    assert found == 3
    # What is in flight is held until its lease ends, and then spent.
    assert (standing.spent, standing.held) == (usd("0.004"), usd("0.01"))
    later[0] = 1000.0
    found, standing = asyncio.run(again())
    assert found == 0 and (standing.spent, standing.held) == (usd("0.014"), usd(0))
    booked, bad = calls(tmp_path)
    assert {own.id: own.usage.output for own in booked} == {
        "a": Count(4, 4),
        "b": Count(4, 4),
        "c": Count(0, 100),
    }
    assert [own.reason for own in bad] == ["need sense; got none"]
    budget = Budget.open(tmp_path / "b.db")
    budget.verify()
    kinds = [entry.kind for entry in budget._store.audit()[1]]
    assert kinds.count(Kind.SETTLE) == kinds.count(Kind.RELEASE) == kinds.count(Kind.PRESUME) == 1


def test_a_full_disc_refuses_what_begins_and_keeps_what_ended(tmp_path):
    async def run():
        budget, store = grouped(tmp_path / "b.db", usd(1))
        desk = Desk(budget, store, ledger=tmp_path / "ledger.db")
        await desk.open()
        begun = await desk.begin(begin("c"))
        execute = store._connection.execute
        (pages,) = execute("PRAGMA page_count").fetchone()
        execute(f"PRAGMA max_page_count={pages}")
        refused = 0
        for number in range(200):  # until the pages that are there are full
            try:
                await desk.begin(begin(f"n{number}", cents=0))
            except FileError as error:
                refused += "full" in str(error)
                break
        assert refused == 1 and "full" in desk.trouble
        assert desk.end(End(handle=begun.handle, spent=(usd("0.005"),), call=call("c"))) is None
        await asyncio.sleep(0.05)
        execute("PRAGMA max_page_count=100000")
        while desk.trouble:
            await asyncio.sleep(0.01)
        (standing,) = await desk.ask(lambda budget: budget.standings())
        assert (standing.spent, standing.held) == (usd("0.005"), usd(0))
        await desk.ask(lambda budget: budget.verify())
        await desk.close()

    asyncio.run(run())
    assert [own.id for own in calls(tmp_path)[0]] == ["c"]


def test_what_cannot_be_booked_is_booked_later(tmp_path):
    async def run():
        budget, store = grouped(tmp_path / "b.db", usd(1))
        desk = Desk(budget, store, ledger=tmp_path / "ledger.db")
        await desk.open()
        book, fails = desk._booking.book, [True]

        def failing(rows):
            if fails[0]:
                raise sqlite3.OperationalError("the disc is full")
            book(rows)

        desk._booking.book = failing
        begun = await desk.begin(begin("c"))
        desk.end(End(handle=begun.handle, spent=(usd("0.005"),), call=call("c")))
        while not desk.trouble:
            await asyncio.sleep(0.01)
        assert "full" in desk.trouble
        fails[0] = False
        while desk.trouble:
            await asyncio.sleep(0.01)
        await desk.close()

    asyncio.run(run())
    assert len(calls(tmp_path)[0]) == 1
