import pytest

from weft.core.errors import InputError
from weft.tokens import Call
from weft.tokens.adapters import FORMATS, call_plain, detect, read_call, read_calls

RECORDS = [
    ("weft", call_plain(Call(id="1", source="s", at=0.0, model="m"))),
    ("otel", {"resourceSpans": []}),
    ("otel", {"span_id": "1", "attributes": {}}),
    ("litellm", {"call_type": "completion", "startTime": 1, "prompt_tokens": 3}),
    ("openai-chat", {"object": "chat.completion", "usage": {}}),
    ("openai-chat", {"response": {"usage": {"prompt_tokens": 3}}}),
    ("openai-responses", {"object": "response"}),
    ("anthropic", {"type": "message", "usage": {"input_tokens": 3}}),
    (
        "anthropic",
        {"message": {"type": "message", "stop_reason": None, "usage": {"input_tokens": 3}}},
    ),
    ("gemini", {"usageMetadata": {}}),
]


@pytest.mark.parametrize(("form", "record"), RECORDS)
def test_formats_are_told_by_what_stands_in_a_record(form, record):
    assert detect(record) == form
    assert form in FORMATS


@pytest.mark.parametrize("record", [{}, {"hello": 1}, {"usage": {"tokens": 4}}, {"usage": None}])
def test_what_is_no_record_of_a_call_is_told_what_is(record):
    with pytest.raises(InputError, match="openai-chat"):
        detect(record)


def test_a_format_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(InputError, match="'openia'"):
        list(read_calls("openia", {}))


def test_one_call_is_asked_of_a_record_with_one():
    with pytest.raises(InputError, match="0 calls"):
        read_call("", {"resourceSpans": []})
