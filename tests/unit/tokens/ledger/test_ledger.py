import sqlite3

import pytest

from tests.unit.tokens.ledger.known import a_call
from weft.core.errors import FileError
from weft.tokens import Count, Status, Usage, exactly
from weft.tokens.ledger import Bad, Ledger, Progress
from weft.tokens.ledger.totals import totals


def test_the_same_call_again_changes_nothing(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        assert ledger.add([a_call(1), a_call(2)]) == 2
        assert ledger.add([a_call(2, agent="other"), a_call(3)]) == 1
        assert [call.agent for call in ledger.calls()] == ["", "", ""]


def test_ids_of_two_sources_are_different_calls():
    with Ledger(":memory:") as ledger:
        assert ledger.add([a_call(1), a_call(1, source="otel")]) == 2


def test_calls_come_in_the_order_of_their_times():
    with Ledger(":memory:") as ledger:
        ledger.add([a_call(3), a_call(1), a_call(2)])
        assert [call.id for call in ledger.calls()] == ["c1", "c2", "c3"]


def test_calls_are_there_after_the_file_was_closed(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.add([a_call(1)])
    with Ledger(tmp_path / "l.db") as ledger:
        assert list(ledger.calls()) == [a_call(1)]


def test_a_batch_that_fails_leaves_nothing():
    with Ledger(":memory:") as ledger:
        with pytest.raises(sqlite3.IntegrityError), ledger.writing() as connection:
            connection.executemany(
                "INSERT INTO quarantine VALUES ('f', 1, 'why', ?)", [("text",), ("again",)]
            )
        assert ledger.quarantine() == ()


def test_two_open_the_same_file_and_both_write(tmp_path):
    with Ledger(tmp_path / "l.db") as one, Ledger(tmp_path / "l.db") as other:
        one.add([a_call(1)])
        other.add([a_call(2)])
        assert len(list(one.calls())) == len(list(other.calls())) == 2


def test_what_is_kept_aside_is_forgotten_from_a_line_on():
    bad = [Bad(path="f", line=line, reason="why", record="x") for line in (1, 5, 9)]
    with Ledger(":memory:") as ledger:
        ledger.write_batch([], bad, Progress(path="f", head="h", head_bytes=1))
        ledger.forget("f", from_line=5)
        assert [own.line for own in ledger.quarantine()] == [1, 5]


def test_a_ledger_that_is_broken_says_so(tmp_path):
    def spoil():
        with Ledger(tmp_path / "l.db") as ledger:
            ledger.connection.execute("DROP TABLE calls")
            list(ledger.calls())

    with pytest.raises(FileError, match=r"l\.db.*no such table"):
        spoil()


def test_sums_of_absurd_counts_are_still_sums(tmp_path):
    most = Usage.of(fresh=10**12, text=10**12)
    with Ledger(":memory:") as ledger:
        ledger.add([a_call(number, usage=most) for number in range(10_000)])
        (group,) = totals(ledger)
    assert group.usage.output == exactly(10**16)


def test_a_call_that_was_broken_off_gives_way_to_the_whole_one():
    def seen(status, count, **changed):
        usage = Usage.of(fresh=5, text=count if status == "done" else Count(count, None))
        return a_call(1, usage=usage, status=Status(status), **changed)

    with Ledger(":memory:") as ledger:
        assert ledger.add([seen("aborted", 1, agent="coder")]) == 1
        for status, count in (("aborted", 7), ("aborted", 3), ("failed", 0)):
            assert ledger.add([seen(status, count)]) == 0
        (call,) = ledger.calls()
        assert (call.status, call.usage.output) == (Status.ABORTED, Count(7, None))
        assert ledger.add([seen("done", 9, passed=True), seen("aborted", 99)]) == 0
        (call,) = ledger.calls()
        assert (call.status, call.usage.output, call.agent) == (Status.DONE, exactly(9), "coder")
        assert call.passed is True
