import json

from tests.unit.tokens.guards.letters import reply
from weft.tokens.guards.transcript import read_turns, turns_of
from weft.tokens.ledger import Ledger, ingest

ANTHROPIC = {
    "id": "msg_1",
    "type": "message",
    "model": "claude-opus-5",
    "created": 1_793_534_400,
    "stop_reason": "tool_use",
    "content": [
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "toolu_1", "name": "read", "input": {"path": "a.py"}},
    ],
    "usage": {"input_tokens": 5, "output_tokens": 9},
}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1_793_534_400,
    "model": "gpt-5",
    "status": "completed",
    "output": [
        {"type": "message", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "c1", "name": "read", "arguments": '{"path": "a.py"}'},
    ],
    "usage": {"input_tokens": 5, "output_tokens": 9, "total_tokens": 14},
}
GEMINI = {
    "responseId": "g1",
    "modelVersion": "gemini-3-pro",
    "createTime": "2026-11-01T12:00:00Z",
    "candidates": [
        {
            "content": {
                "parts": [
                    {"text": "hm", "thought": True},
                    {"text": "I look."},
                    {"functionCall": {"name": "read", "args": {"path": "a.py"}}},
                ]
            }
        }
    ],
    "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 9, "totalTokenCount": 14},
}
SPAN = {
    "name": "execute_tool read",
    "context": {"trace_id": "0x1", "span_id": "0x2"},
    "start_time": "2026-11-01T12:00:00Z",
    "attributes": {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "read",
        "gen_ai.tool.call.arguments": '{"path": "a.py"}',
        "gen_ai.tool.call.result": "text",
    },
}


def test_text_and_tools_are_read_of_each_provider():
    chat = reply(1, "I look.", tool="read", arguments='{"path": "a.py"}')
    for record in (chat, ANTHROPIC, RESPONSE, GEMINI):
        (turn,) = turns_of(record)
        (tool,) = turn.tools
        assert (turn.text, tool.tool) == ("I look.", "read")
        assert tool.arguments in ({"path": "a.py"}, '{"path": "a.py"}')
        assert tool.at == turn.at == 1_793_534_400 + (record is chat)


def test_a_tools_span_is_a_turn():
    (turn,) = turns_of(SPAN)
    assert turn.call is None and turn.tools[0].result == "text" and turn.session == "1"


def test_results_are_found_in_later_requests(tmp_path):
    path = tmp_path / "log.jsonl"
    records = [
        reply(1, tool="read"),
        {"message": "of something else"},
        reply(2, tool="read", results=[("call1", "first")]),
        reply(2, tool="read", results=[("call1", "first")]),
        reply(3, "done", results=[("call1", "first"), ("call2", "second")]),
    ]
    path.write_text("not json\n" + "\n".join(map(json.dumps, records)))
    turns = read_turns([path])
    assert [[tool.result for tool in turn.tools] for turn in turns] == [["first"], ["second"], []]
    assert [turn.session for turn in turns] == ["s1"] * 3


def test_turns_have_the_calls_of_a_ledger(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(json.dumps(reply(n, "text")) for n in range(5)))
    with Ledger(":memory:") as ledger:
        ingest(ledger, [path], processes=1)
        assert [turn.call for turn in read_turns([path])] == list(ledger.calls())
