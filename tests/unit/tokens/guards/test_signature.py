import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.tokens.guards import ToolCall, signature

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(max_examples=40)
@given(st.dictionaries(st.text(min_size=1, max_size=6), plain, max_size=4))
def test_order_and_encoding_do_not_matter(arguments):
    turned = dict(reversed(arguments.items()))
    own = signature(ToolCall(tool="t", arguments=arguments))
    assert own == signature(ToolCall(tool="t", arguments=turned))
    assert own == signature(ToolCall(tool="t", arguments=json.dumps(turned)))


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ({"q": "a", "request_id": "1"}, {"q": "a", "request_id": "2"}, True),
        ({"q": "a", "timestamp": 1.0}, {"q": "a", "timestamp": 2.0}, True),
        ({"q": "at 2026-11-01T12:00:00Z"}, {"q": "at 2026-11-01T12:00:07Z"}, True),
        ({"q": "took 12 ms"}, {"q": "took 340 ms"}, True),
        (
            {"q": "job 123e4567-e89b-12d3-a456-426614174000"},
            {"q": "job 00000000-e89b-12d3-a456-426614174000"},
            True,
        ),
        ({"q": " a  b\n"}, {"q": "a b"}, True),
        ({"q": None, "p": 1}, {"p": 1}, True),
        ({"page": 1}, {"page": 2}, False),
        ({"cursor": "abc"}, {"cursor": "abd"}, False),
        ({"id": 1}, {"id": 2}, False),
        ("{broken", "{ broken", False),
    ],
)
def test_only_what_never_repeats_is_left_out(one, two, same):
    first, second = (signature(ToolCall(tool="t", arguments=own)) for own in (one, two))
    assert (first == second) is same
    first, second = (signature(ToolCall(tool="t", result=own)) for own in (one, two))
    assert (first == second) is same


def test_tools_and_results_tell_calls_apart():
    calls = [ToolCall(tool="a"), ToolCall(tool="b"), ToolCall(tool="a", result="x")]
    assert len(set(map(signature, calls))) == 3


def test_a_call_that_costs_less_than_nothing_is_refused():
    with pytest.raises(InputError):
        ToolCall(tool="t", usd=-1.0)
