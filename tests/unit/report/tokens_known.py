"""A report of a ledger in which everything that can be wrong is."""

from tests.unit.tokens.ledger.known import a_call
from tests.unit.workflow.test_tokens_report import Toy
from weft.tokens import UNKNOWN, Count, Usage
from weft.tokens.ledger import Bad, Ledger, Progress
from weft.workflow.tokens_report import tokens_report


def a_report(*, book=True, by=("agent", "model")):
    split = Count(0, 10)
    calls = [
        a_call(1, agent="coder", task="t1", passed=True),
        a_call(2, agent="coder", task="t2", passed=False),
        a_call(3, agent="critic", model="mystery"),
        a_call(4, agent="critic", usage=Usage.of(fresh=split, cache_read=split, input=10)),
        a_call(5, agent="<critic>", parent="c6", usage=Usage.of(text=UNKNOWN)),
        a_call(6, agent="critic"),
    ]
    bad = [Bad(path="log<1>.jsonl", line=7, reason="need JSON; got <nothing>", record="{")]
    with Ledger(":memory:") as ledger:
        ledger.add(calls)
        ledger.write_batch([], bad, Progress(path="log", head="", head_bytes=0, duplicates=3))
        return tokens_report(ledger, by=by, book=Toy() if book else None)


def an_empty_report():
    with Ledger(":memory:") as ledger:
        return tokens_report(ledger, book=Toy())
