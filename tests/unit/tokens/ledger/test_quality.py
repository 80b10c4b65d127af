import json

from tests.unit.tokens.ledger.known import NOON, a_call, reply
from weft.tokens import UNKNOWN, Count, Usage
from weft.tokens.ledger import Ledger, ingest
from weft.tokens.ledger.quality import quality

SPLIT = Count(0, 10)


def test_an_empty_ledger_has_nothing_wrong():
    with Ledger(":memory:") as ledger:
        found = quality(ledger)
    assert (found.calls, found.inexact, found.skewed, found.without["task"]) == (0, 0, 0, 0)


def test_what_is_unknown_is_counted_by_what_it_is():
    usages = [
        Usage.of(fresh=3),
        Usage.of(fresh=Count(1, 3)),
        Usage.of(fresh=UNKNOWN),
        Usage.of(fresh=SPLIT, cache_read=SPLIT, input=10),
        Usage.of(text=SPLIT, reasoning=SPLIT, output=10),
    ]
    with Ledger(":memory:") as ledger:
        ledger.add([a_call(n, usage=used) for n, used in enumerate(usages)])
        found = quality(ledger)
    assert (found.inexact, found.unbounded) == (2, 1)
    assert (found.unsplit_input, found.unsplit_output) == (1, 1)


def test_a_call_before_the_one_that_led_to_it_is_found():
    calls = [
        a_call(1),
        a_call(2, parent="c1", at=NOON),
        a_call(3, parent="c1", at=NOON + 5),
        a_call(4, labels={"skew": "ended 1.000 s before it began"}),
    ]
    with Ledger(":memory:") as ledger:
        ledger.add(calls)
        found = quality(ledger)
    assert found.skewed == 2
    assert {(skew.id, skew.what) for skew in found.skews} == {
        ("c2", "began 1.000 s before the call that led to it"),
        ("c4", "ended 1.000 s before it began"),
    }


def test_records_of_files_are_counted_by_what_became_of_them(tmp_path):
    log = tmp_path / "a.jsonl"
    log.write_text("".join(json.dumps(r) + "\n" for r in (reply(1), reply(1), {"x": 1})))
    with Ledger(":memory:") as ledger:
        ingest(ledger, [log])
        found = quality(ledger)
    assert (found.records, found.calls, found.duplicates, found.quarantined) == (3, 1, 1, 1)
    assert found.bad[0].path == str(log)
    assert found.without == {"task": 0, "agent": 0, "payer": 1}
