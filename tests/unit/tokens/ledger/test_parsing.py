import json

import pytest

from tests.unit.tokens.ledger.known import NOON, reply
from weft.tokens.ledger.parsing import Reading, parse
from weft.tokens.ledger.records import Raw
from weft.tokens.ledger.schema import row_call


def parsed(*contents, **how):
    raws = [Raw(content, line, line) for line, content in enumerate(contents, start=1)]
    return parse("log", raws, Reading(**{"now": NOON, **how}))


def test_each_record_is_a_call_is_ignored_or_is_kept_aside():
    other = {"resourceSpans": []}
    done = parsed(json.dumps(reply(1)), other, "{broken", "[1]", '{"hello": 1}', reply(2))
    assert [row_call(row).id for row in done.rows] == ["chatcmpl-1", "chatcmpl-2"]
    assert done.ignored == 1
    assert [bad.line for bad in done.bad] == [3, 4, 5]
    assert [bad.record for bad in done.bad][:2] == ["{broken", "[1]"]


def test_reasons_name_what_is_wrong():
    usage = {"prompt_tokens": -3, "completion_tokens": 1}
    record = reply(1)
    record["response"]["usage"] = usage
    (bad,) = parsed(record).bad
    assert "prompt_tokens" in bad.reason and "-3" in bad.reason
    (bad,) = parsed("{broken").bad
    assert "JSON" in bad.reason


def test_a_record_that_only_looks_like_one_ends_nothing():
    strange = {"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": [{"no": "key"}]}]}]}]}
    done = parsed(strange, {"usage": {"prompt_tokens": 1}, "choices": [3], "created": []}, reply(3))
    assert len(done.bad) == 2
    assert len(done.rows) == 1


def test_a_call_of_the_future_is_noted():
    early, late = reply(0), reply(4000)
    done = parsed(early, late, now=NOON + 60)
    assert [row_call(row).id for row in done.rows] == ["chatcmpl-0", "chatcmpl-4000"]
    skews = [row for row in done.rows if any("in the future" in str(cell) for cell in row)]
    assert len(skews) == 1


def test_a_call_of_before_there_were_any_is_noted():
    (row,) = parsed(reply(1) | {"timestamp": 0}).rows
    assert any("when there were no such calls" in str(cell) for cell in row)


@pytest.mark.parametrize("time", [True, "nan", 1e400, 1e30])
def test_a_time_that_is_none_is_kept_aside(time):
    (bad,) = parsed(reply(1) | {"timestamp": time}).bad
    assert "a time" in bad.reason
