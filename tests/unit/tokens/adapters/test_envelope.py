import pytest

from weft.core.errors import InputError
from weft.tokens.adapters.envelope import (
    about,
    content_id,
    most_tokens,
    opened,
    seconds,
    tier_name,
    when,
)

REPLY = {"id": "1", "usage": {}}


@pytest.mark.parametrize(
    "record",
    [
        REPLY,
        {"response": REPLY},
        {"custom_id": "a", "response": {"status_code": 200, "body": REPLY}},
        {"custom_id": "a", "result": {"type": "succeeded", "message": REPLY}},
    ],
)
def test_a_reply_is_found_however_it_is_wrapped(record):
    assert opened(record) is REPLY


@pytest.mark.parametrize(
    "value",
    [
        1793491200,
        1793491200.0,
        1793491200_000,
        1793491200_000_000,
        1793491200_000_000_000,
        "1793491200000000000",
        "2026-11-01T00:00:00Z",
        "2026-11-01T01:00:00+01:00",
        "2026-11-01 00:00:00",
        "2026-11-01 00:00:00.0000000",
    ],
)
def test_one_moment_is_read_from_all_its_spellings(value):
    assert seconds(value) == 1793491200.0


@pytest.mark.parametrize("value", ["yesterday", None, [], ""])
def test_what_is_no_time_is_named(value):
    with pytest.raises(InputError, match="time"):
        seconds(value)


def test_a_record_without_a_time_has_the_one_that_was_given_or_is_refused():
    assert when({}, {}, 5.0) == 5.0
    assert when({"timestamp": 7}, {"created": 8}, 5.0) == 7.0
    with pytest.raises(InputError, match="--at"):
        when({"id": 1}, {}, None)


def test_names_are_found_around_a_reply_in_its_metadata_and_under_other_names():
    outer = {"agent": "coder", "session_id": "s", "metadata": {"task": "t1", "arm": "low"}}
    inner = {"metadata": {"payer": "red", "agent": "other", "passed": "true"}}
    assert about(outer, inner) == {
        "agent": "coder",
        "session": "s",
        "task": "t1",
        "arm": "low",
        "payer": "red",
        "passed": True,
    }


def test_a_fields_own_name_goes_before_another_one():
    assert about({"session": "a", "session_id": "b"}, {}) == {"session": "a"}


@pytest.mark.parametrize("passed", ["maybe", 2, []])
def test_an_outcome_is_true_or_false(passed):
    with pytest.raises(InputError, match="passed"):
        about({"passed": passed}, {})


def test_what_was_allowed_is_taken_from_the_request_first():
    assert most_tokens({"request": {"max_tokens": 5}, "max_tokens": 6}, {}) == 5
    assert most_tokens({}, {"max_output_tokens": 7}) == 7
    assert most_tokens({"request": None}, {"max_output_tokens": None}) is None


def test_standard_tiers_have_no_name():
    assert [tier_name(t) for t in ("default", None, "standard", "flex", "ON_DEMAND_FLEX")] == [
        "",
        "",
        "",
        "flex",
        "flex",
    ]


def test_the_same_content_has_the_same_name():
    assert content_id({"a": 1}) == content_id({"a": 1}) != content_id({"a": 2})
