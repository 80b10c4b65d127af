import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.tokens import Call, Count, Status, TokenClass, Usage
from weft.tokens.adapters import call_plain, read_call

COUNTS = st.builds(
    lambda low, more: Count(low, None if more is None else low + more),
    st.integers(0, 10**6),
    st.none() | st.integers(0, 10**6),
)
USAGES = st.builds(
    lambda counts: Usage(counts=counts),
    st.dictionaries(st.sampled_from(list(TokenClass)), COUNTS),
)
WORDS = st.text(min_size=1, max_size=8)


@given(
    st.builds(
        Call,
        id=WORDS,
        source=WORDS,
        at=st.floats(0, 2e9),
        model=WORDS,
        usage=USAGES,
        status=st.sampled_from(list(Status)),
        agent=WORDS,
        tier=WORDS,
        passed=st.none() | st.booleans(),
        seconds=st.none() | st.floats(0, 1e5),
        labels=st.dictionaries(WORDS, WORDS, max_size=2),
    )
)
def test_a_call_is_the_same_after_it_was_written_and_read(call):
    assert read_call("", json.loads(json.dumps(call_plain(call)))) == call


def test_sums_that_are_known_better_than_their_classes_are_kept():
    split = Count(0, 10)
    call = Call(
        id="1",
        source="s",
        at=0.0,
        model="m",
        usage=Usage.of(fresh=split, cache_read=split, input=10),
    )
    assert read_call("", call_plain(call)).usage == call.usage


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"usage": {"frsh": 3}}, "frsh"),
        ({"colour": "red"}, "colour"),
        ({"usage": {"fresh": "3"}}, "'3'"),
        ({"usage": {"fresh": True}}, "True"),
        ({"usage": {"fresh": [3]}}, r"\[3\]"),
        ({"usage": {"fresh": 10**12 + 1}}, "10+1"),
        ({"model": None}, "need  model"),
        ({"agent": {"a": 1}}, "need  agent"),
        ({"passed": "no"}, "need  passed"),
        ({"seconds": True}, "need  seconds"),
        ({"at": "noon"}, "a time"),
        ({"labels": {"a": 1}}, "need  labels"),
    ],
)
def test_what_is_no_field_or_count_is_named(changed, named):
    plain = call_plain(Call(id="1", source="s", at=0.0, model="m"))
    with pytest.raises(InputError, match=named):
        read_call("", {**plain, **changed})


def test_a_time_may_be_written_as_a_date():
    plain = call_plain(Call(id="1", source="s", at=0.0, model="m"))
    assert read_call("", {**plain, "at": "1970-01-02T00:00:00Z"}).at == 86400.0
