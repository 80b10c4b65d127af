import sqlite3
import threading

import pytest

from weft.core.errors import FileError
from weft.tokens import usd
from weft.tokens.budgets import Budget
from weft.tokens.budgets.sqlite import SqliteStore


def test_a_file_of_another_program_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE mine (x)")
    file.close()
    before = path.read_bytes()
    with pytest.raises(FileError, match="a database of version 0"):
        Budget.open(path, cap=usd(1))
    assert path.read_bytes() == before
    path.write_text("not a database, but long enough to look like one" * 40)
    with pytest.raises(FileError, match="not a database"):
        Budget.open(path, cap=usd(1))


def test_a_folder_that_is_not_there_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(FileError, match="in a folder that exists"):
        Budget.open(tmp_path / "none" / "team.db", cap=usd(1))


def test_lines_of_the_log_are_neither_changed_nor_taken_away(tmp_path):
    path = tmp_path / "team.db"
    Budget.open(path, cap=usd(1)).close()
    file = sqlite3.connect(path)
    for change in ("UPDATE log SET at = 0", "DELETE FROM log"):
        with pytest.raises(sqlite3.IntegrityError, match="the log is kept"):
            file.execute(change)
    file.close()


def test_a_law_that_fails_after_it_wrote_undoes_all_of_its_batch(tmp_path):
    store = SqliteStore(tmp_path / "team.db")
    budget = Budget(store)
    budget.add("", usd(1))

    def broken(tables):
        (own,) = tables.accounts([""])
        own.spent = 1
        tables.save(own)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        store.within(broken)
    assert budget.standing()[0].spent == usd(0)
    budget.verify()
    budget.close()


def test_laws_of_threads_that_wait_share_a_transaction(tmp_path):
    store = SqliteStore(tmp_path / "team.db")
    budget = Budget(store)
    budget.add("", usd(1))
    begun = []
    store._connection.set_trace_callback(lambda text: begun.append(text.startswith("BEGIN")))
    store._lock.acquire()
    threads = [threading.Thread(target=lambda: budget.reserve("", usd("0.01"))) for _ in range(5)]
    for thread in threads:
        thread.start()
    while len(store._waiting) < 5:
        pass
    store._lock.release()
    for thread in threads:
        thread.join()
    assert sum(begun) == 1
    assert budget.standing()[0].flying == 5
    budget.close()
