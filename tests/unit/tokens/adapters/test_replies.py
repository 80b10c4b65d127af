import pytest

from weft.core.errors import InputError
from weft.tokens import Count, Status, Usage, exactly
from weft.tokens.adapters import read_call, read_calls
from weft.tokens.adapters.replies import modalities

OPENAI = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1793491200,
    "model": "GPT-5",
    "service_tier": "flex",
    "choices": [{"index": 0, "finish_reason": "stop"}],
    "usage": {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    },
}
ANTHROPIC = {
    "id": "msg_1",
    "type": "message",
    "model": "claude-sonnet-4-5",
    "stop_reason": "end_turn",
    "usage": {
        "input_tokens": 10,
        "cache_read_input_tokens": 4,
        "cache_creation_input_tokens": 0,
        "output_tokens": 5,
        "service_tier": "standard",
    },
}


def test_a_chat_completion_is_a_call():
    call = read_call("", {"agent": "coder", "response": OPENAI})
    assert (call.source, call.id, call.at) == ("openai", "chatcmpl-1", 1793491200.0)
    assert (call.provider, call.model, call.tier, call.agent) == (
        "openai",
        "gpt-5",
        "flex",
        "coder",
    )
    assert call.usage == Usage.of(fresh=6, cache_read=4, text=3, reasoning=2)
    assert call.status is Status.DONE


def test_a_message_is_a_call_with_the_time_of_the_log():
    call = read_call("", {"timestamp": "2026-11-01T00:00:00Z", "response": ANTHROPIC})
    assert (call.source, call.provider, call.at, call.tier) == (
        "anthropic",
        "anthropic",
        1793491200.0,
        "",
    )
    assert call.usage.input == exactly(14)


def test_a_reply_of_gemini_is_a_call_in_either_spelling():
    for usage, counts in (
        ("usageMetadata", {"promptTokenCount": 8, "thoughtsTokenCount": 3, "totalTokenCount": 11}),
        (
            "usage_metadata",
            {"prompt_token_count": 8, "thoughts_token_count": 3, "total_token_count": 11},
        ),
    ):
        call = read_call(
            "", {"responseId": "r", "modelVersion": "gemini-2.5-pro", usage: counts}, at=1.0
        )
        assert (call.provider, call.model, call.id) == ("google", "gemini-2.5-pro", "r")
        assert (call.usage.input, call.usage.output) == (exactly(8), exactly(3))


def test_lines_of_batches_are_in_the_batch_tier():
    record = {"custom_id": "a", "response": {"status_code": 200, "body": OPENAI}}
    assert read_call("", record).tier == "batch"
    record = {"custom_id": "a", "result": {"type": "succeeded", "message": ANTHROPIC}}
    assert read_call("", record, at=0.0).tier == "batch"


def test_a_response_is_a_call_and_one_that_was_cancelled_broke_off():
    usage = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}
    response = {"id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-5"}
    done = read_call("", {**response, "status": "completed", "usage": usage})
    assert (done.usage.input, done.status) == (exactly(9), Status.DONE)
    cut = read_call("", {**response, "status": "cancelled", "usage": None, "max_output_tokens": 50})
    assert (cut.status, cut.usage.output) == (Status.ABORTED, Count(0, 50))


def test_a_message_without_a_reason_to_stop_broke_off():
    usage = {**ANTHROPIC["usage"], "output_tokens": 2}
    cut = {**ANTHROPIC, "stop_reason": None, "usage": usage}
    call = read_call("", {"at": 0, "request": {"max_tokens": 64}, "response": cut})
    assert call.status is Status.ABORTED
    assert call.usage.output == Count(2, 64)
    assert call.usage.input == exactly(14)


def test_a_stream_of_chunks_is_the_one_with_the_usage():
    chunk = {**OPENAI, "object": "chat.completion.chunk"}
    assert list(read_calls("openai-chat", {**chunk, "usage": None})) == []
    assert read_call("", chunk).usage.input == exactly(10)


def test_a_reply_without_usage_is_unknown_up_to_what_was_allowed():
    silent = {name: value for name, value in OPENAI.items() if name != "usage"}
    call = read_call("", {"response": silent, "request": {"max_tokens": 30}})
    assert call.usage.output == Count(0, 30)
    assert call.usage.input == Count(0, None)


def test_reasoning_stands_beside_the_completion_of_grok():
    usage = {
        "prompt_tokens": 32,
        "completion_tokens": 9,
        "total_tokens": 135,
        "prompt_tokens_details": {"cached_tokens": 6},
        "completion_tokens_details": {"reasoning_tokens": 94},
    }
    call = read_call("", {**OPENAI, "model": "grok-4", "usage": usage})
    assert (call.provider, call.usage.output) == ("x-ai", exactly(103))


def test_a_reply_without_an_id_is_named_by_what_it_says():
    nameless = {name: value for name, value in OPENAI.items() if name != "id"}
    assert read_call("", nameless).id == read_call("", dict(nameless)).id


def test_a_model_that_several_serve_has_no_provider_unless_the_log_says_one():
    assert read_call("", {**OPENAI, "model": "llama-3"}).provider == ""
    assert read_call("", {**OPENAI, "model": "llama-3", "provider": "Groq"}).provider == "groq"


def test_counts_that_cannot_be_are_refused_with_their_field():
    usage = {**ANTHROPIC["usage"], "output_tokens": -5}
    with pytest.raises(InputError, match="output_tokens"):
        read_call("", {**ANTHROPIC, "usage": usage}, at=0.0)


@pytest.mark.parametrize(("count", "audio"), [("7", 7), (7.0, 7), (None, 0)])
def test_modalities_are_counted_as_other_numbers_are(count, audio):
    listed = [{"modality": "AUDIO", "tokenCount": count}]
    assert modalities({"promptTokensDetails": listed})["promptTokensDetails"]["AUDIO"] == audio


@pytest.mark.parametrize("count", [True, -1, "many"])
def test_a_modality_without_a_number_is_refused(count):
    with pytest.raises(InputError, match="AUDIO"):
        modalities({"promptTokensDetails": [{"modality": "AUDIO", "tokenCount": count}]})


def test_an_event_of_a_stream_is_no_reply_of_its_own():
    event = {"type": "message_delta", "usage": {"output_tokens": 5, "cache_read_input_tokens": 0}}
    with pytest.raises(InputError, match="an event of a stream"):
        read_call("", {"timestamp": 1793491200, **event})


@pytest.mark.parametrize(("ended", "status"), [({}, "aborted"), ({"finishReason": "STOP"}, "done")])
def test_a_part_of_a_stream_of_geminis_is_known_from_below(ended, status):
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 4, "totalTokenCount": 14}
    part = {"responseId": "g", "candidates": [ended], "usageMetadata": usage}
    call = read_call("gemini", part, at=1793491200.0)
    assert (call.status, call.usage.output.is_exact) == (Status(status), status == "done")


def test_a_call_whose_clock_was_set_back_is_counted_and_noted():
    call = read_call("", {**OPENAI, "seconds": -1.5})
    assert (call.seconds, dict(call.labels)) == (None, {"skew": "took -1.5 s"})
