import pytest

from weft.core.errors import InputError
from weft.tokens import Count, Status, Usage, exactly
from weft.tokens.adapters import read_call, read_calls

START = 1_793_491_200


def encoded(value):
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}  # as JSON of OTLP has 64 bits
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [encoded(entry) for entry in value]}}
    return {"stringValue": value}


def a_span(own, *, parent="", start=START, end=START + 2, code=0, **attributes):
    named = {name.replace("__", "."): value for name, value in attributes.items()}
    return {
        "traceId": "aa",
        "spanId": own,
        "parentSpanId": parent,
        "startTimeUnixNano": str(start * 10**9),
        "endTimeUnixNano": str(end * 10**9),
        "status": {"code": code},
        "attributes": [{"key": name, "value": encoded(v)} for name, v in named.items()],
    }


def a_document(*spans):
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": list(spans)}]}]}


CHAT = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-5",
    "gen_ai.usage.input_tokens": 100,
    "gen_ai.usage.cache_read.input_tokens": 40,
    "gen_ai.usage.cache_write.input_tokens": 0,
    "gen_ai.usage.output_tokens": 20,
    "gen_ai.usage.reasoning.output_tokens": 15,
}


def test_a_span_of_a_model_is_a_call():
    call = read_call("", a_document(a_span("01", **CHAT)))
    assert (call.id, call.source, call.at, call.seconds) == ("aa/01", "otel", float(START), 2.0)
    assert (call.provider, call.model, call.agent) == ("openai", "gpt-5", "shop")
    assert call.usage == Usage.of(fresh=60, cache_read=40, text=5, reasoning=15)


def test_an_agents_span_with_the_sum_of_its_calls_is_not_counted_again():
    agent = a_span(
        "01",
        **{
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": "planner",
            "gen_ai.conversation.id": "c1",
            "gen_ai.request.model": "gpt-5",
            "gen_ai.usage.input_tokens": 200,
            "weft.task": "t1",
        },
    )
    tool = a_span("02", parent="01", **{"gen_ai.operation.name": "execute_tool"})
    calls = list(
        read_calls(
            "",
            a_document(
                agent, tool, a_span("03", parent="02", **CHAT), a_span("04", parent="01", **CHAT)
            ),
        )
    )
    assert [call.id for call in calls] == ["aa/03", "aa/04"]
    assert {(call.agent, call.session, call.task) for call in calls} == {("planner", "c1", "t1")}
    assert sum(call.usage.input.low for call in calls) == 200


def test_a_cache_that_nobody_counted_is_unknown_within_the_input():
    counts = {k: v for k, v in CHAT.items() if "cache" not in k}
    call = read_call("", a_document(a_span("01", **counts)))
    assert call.usage.input == exactly(100)
    assert not call.usage.is_exact


def test_a_child_that_began_before_its_parent_is_noted():
    agent = a_span("01", start=START, **{"gen_ai.operation.name": "invoke_agent"})
    early = a_span("02", parent="01", start=START - 3, **CHAT)
    call = read_call("", a_document(agent, early))
    assert call.labels["skew"] == "began 3.000 s before its parent"


def test_a_span_that_ended_before_it_began_has_no_duration():
    call = read_call("", a_document(a_span("01", start=START, end=START - 1, **CHAT)))
    assert call.seconds is None
    assert "ended 1.000 s before" in call.labels["skew"]


def test_a_request_that_was_refused_used_nothing():
    told = {"gen_ai.request.model": "gpt-5", "gen_ai.operation.name": "chat"}
    for kind in ("429", "RateLimitError"):
        call = read_call("", a_document(a_span("01", code=2, **told, **{"error.type": kind})))
        assert (call.status, call.usage) == (Status.FAILED, Usage())


def test_a_request_that_failed_otherwise_may_have_used_what_was_allowed():
    told = {
        "gen_ai.request.model": "gpt-5",
        "gen_ai.operation.name": "chat",
        "gen_ai.request.max_tokens": 50,
        "error.type": "timeout",
    }
    call = read_call("", a_document(a_span("01", code=2, **told)))
    assert call.usage.output == Count(0, 50)
    assert call.usage.input == Count(0, None)


def test_a_stream_that_ended_in_an_error_is_known_from_below():
    reasons = {"gen_ai.response.finish_reasons": ["error"], "gen_ai.request.max_tokens": 90}
    call = read_call("", a_document(a_span("01", **CHAT, **reasons)))
    assert (call.status, call.usage.output) == (Status.ABORTED, Count(20, 90))


def test_spans_of_openinference_are_calls_if_a_model_was_called():
    printed = {
        "name": "ChatCompletion",
        "context": {"trace_id": "0xAA", "span_id": "0x01"},
        "parent_id": "0x02",
        "start_time": "2026-11-01T00:00:00Z",
        "end_time": "2026-11-01T00:00:01Z",
        "status": {"status_code": "OK"},
        "attributes": {
            "openinference": {"span": {"kind": "LLM"}},  # some exporters nest names by their dots
            "llm.model_name": "gpt-4o",
            "llm.provider": "openai",
            "session.id": "s1",
            "llm.token_count.prompt": 10,
            "llm.token_count.completion": 15,
            "llm.token_count.total": 25,
        },
    }
    call = read_call("", printed)
    assert (call.id, call.parent, call.session) == ("aa/01", "aa/02", "s1")
    assert (call.usage.input, call.usage.output) == (exactly(10), exactly(15))
    chain = {
        **printed,
        "attributes": {"openinference.span.kind": "CHAIN", "llm.token_count.prompt": 9},
    }
    assert list(read_calls("", chain)) == []


@pytest.mark.parametrize("passed", [True, False])
def test_a_span_may_say_how_its_task_ended(passed):
    call = read_call("", a_document(a_span("01", **CHAT, **{"weft.passed": passed})))
    assert call.passed is passed


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"attributes": [{"no": "key"}]}, "KeyError"),
        ({"spanId": ""}, "an id"),
        ({"startTimeUnixNano": "soon"}, "soon"),
    ],
)
def test_one_span_that_is_broken_leaves_the_others(changed, named):
    good = [a_span(f"0{n}", **CHAT) for n in range(3)]
    read = read_calls("", a_document(good[0], {**good[1], **changed}, good[2]))
    found = []
    with pytest.raises(InputError, match=rf"(?s){named}.*1 of 3 spans"):
        found.extend(read)
    assert [call.id for call in found] == ["aa/00", "aa/02"]


def test_one_count_that_is_broken_leaves_the_other_spans():
    odd = {**CHAT, "gen_ai.usage.input_tokens": -4}
    read = read_calls("", a_document(a_span("01", **odd), a_span("02", **CHAT)))
    found = []
    with pytest.raises(InputError, match=r"input_tokens(?s:.*)-4; 1 of 2"):
        found.extend(read)
    assert [call.id for call in found] == ["aa/02"]


def test_a_span_of_the_proxy_is_the_call_that_it_booked():
    call = read_call("", a_document(a_span("01", **CHAT, weft__call="c7")))
    assert (call.source, call.id, call.agent) == ("weft", "c7", "")
