import json

from weft.tokens import Status, Usage, exactly
from weft.tokens.adapters import read_call

USAGE = {
    "prompt_tokens": 150,
    "completion_tokens": 20,
    "total_tokens": 170,
    "prompt_tokens_details": {
        "cached_tokens": 100,
        "cache_creation_tokens": 30,
        "cache_creation_token_details": {
            "ephemeral_5m_input_tokens": 0,
            "ephemeral_1h_input_tokens": 30,
        },
    },
    "completion_tokens_details": {"reasoning_tokens": 5},
}
PAYLOAD = {
    "id": "msg_1",
    "trace_id": "trace",
    "call_type": "acompletion",
    "status": "success",
    "custom_llm_provider": "anthropic",
    "model": "anthropic/claude-sonnet-4-5",
    "prompt_tokens": 150,
    "completion_tokens": 20,
    "total_tokens": 170,
    "startTime": 1793491200.0,
    "endTime": 1793491203.5,
    "response_cost": 0.1,
    "metadata": {
        "user_api_key_team_alias": "red",
        "usage_object": USAGE,
        "requester_metadata": {"task": "t1", "agent": "coder", "passed": True},
    },
}


def test_a_standard_payload_is_a_call_with_the_counts_of_its_usage():
    call = read_call("", PAYLOAD)
    assert (call.source, call.id, call.at, call.seconds) == ("litellm", "msg_1", 1793491200.0, 3.5)
    assert (call.provider, call.model) == ("anthropic", "claude-sonnet-4-5")
    assert (call.payer, call.task, call.agent, call.session) == ("red", "t1", "coder", "trace")
    assert call.passed is True
    assert call.usage == Usage.of(fresh=20, cache_read=100, cache_write_1h=30, text=15, reasoning=5)


def test_a_row_of_spend_logs_is_the_same_call():
    row = {
        **{k: v for k, v in PAYLOAD.items() if k not in ("id", "trace_id", "metadata")},
        "request_id": "msg_1",
        "session_id": "trace",
        "startTime": "2026-11-01T00:00:00+00:00",
        "endTime": "2026-11-01T00:00:03.500000+00:00",
        "metadata": json.dumps(PAYLOAD["metadata"]),
    }
    assert read_call("", row) == read_call("", PAYLOAD)


def test_without_a_usage_the_sums_are_known_and_what_lies_within_is_not():
    call = read_call("", {**PAYLOAD, "metadata": {}})
    assert (call.usage.input, call.usage.output) == (exactly(150), exactly(20))
    assert not call.usage.is_exact


def test_an_answer_from_the_gateways_own_cache_used_no_model():
    for hit in (True, "True"):
        assert read_call("", {**PAYLOAD, "cache_hit": hit}).usage == Usage()
    assert read_call("", {**PAYLOAD, "cache_hit": "None"}).usage.input == exactly(150)


def test_a_failure_with_zeros_used_nothing():
    none = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, "metadata": {}}
    call = read_call("", {**PAYLOAD, **none, "status": "failure"})
    assert (call.status, call.usage) == (Status.FAILED, Usage())


def test_a_line_that_ended_before_it_began_is_noted():
    call = read_call("", {**PAYLOAD, "endTime": 1793491199.0})
    assert call.seconds is None
    assert "before it began" in call.labels["skew"]
