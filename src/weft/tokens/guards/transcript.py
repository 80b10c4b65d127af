"""What was said and which tools were called, from logs that keep it.

A ledger holds tokens, not text. Logs of replies mostly hold both; what tools answered stands in the
requests after them, and is found by the ids of their calls.

Source: OpenAI API reference (chat completions, responses), Anthropic API reference (messages),
Google Gemini API reference (generateContent); OpenTelemetry semantic conventions for generative AI
(execute_tool) and OpenInference (TOOL).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from weft.core.errors import InputError
from weft.tokens.adapters.envelope import Plain, name_in, opened
from weft.tokens.adapters.formats import read_calls
from weft.tokens.adapters.spans import Span, is_document, is_span, read_spans
from weft.tokens.call import Call
from weft.tokens.guards.signature import ToolCall
from weft.tokens.ledger.records import find_files, read_raw

__all__ = ["Turn", "read_turns", "turns_of"]

_TOOL_NAMES = ("gen_ai.tool.name", "tool.name")
_ARGUMENTS = ("gen_ai.tool.call.arguments", "input.value", "tool.parameters")
_RESULTS = ("gen_ai.tool.call.result", "output.value")
_DEEPEST = 40
"""Of nested objects that are looked into. Chosen: requests are a few deep."""


_BROKEN = (InputError, ValueError, KeyError, TypeError, AttributeError, OverflowError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One reply, or one call of a tool where spans are logged.

    Attributes:
        at: when [s since 1970].
        call: with its usage; None for a span of a tool.
        session: who it belongs to: a session, else a task, an agent, or a trace.
        text: that was shown; None if the log does not keep it.
        tools: that were asked for.
        ids: of their calls, by which results are found; empty where there is none.
    """

    at: float
    call: Call | None
    session: str
    text: str | None
    tools: tuple[ToolCall, ...]
    ids: tuple[str, ...] = ()

    def answered(self, results: Mapping[str, object]) -> Turn:
        """With results of tools, by the ids of their calls."""
        if not self.ids:
            return self
        named = zip(self.tools, self.ids, strict=True)
        tools = tuple(replace(tool, result=results.get(name)) for tool, name in named)
        return replace(self, tools=tools, ids=())


def read_turns(paths: Iterable[str | Path], *, at: float | None = None) -> list[Turn]:
    """Turns of logs, in the order of their times; records that cannot be read are left out.

    Args:
        paths: files of JSON, and folders of them.
        at: the time of replies that have none [s since 1970].

    Raises:
        FileError: a file is not there.
    """
    turns: list[Turn] = []
    results: dict[str, object] = {}
    seen: set[tuple[str, str]] = set()
    for path in find_files(tuple(map(Path, paths))):
        for raw in read_raw(path):
            record = _record(raw.content)
            if record is None:
                continue
            results.update(_results(record))
            for turn in turns_of(record, at=at):
                own = ("", "") if turn.call is None else (turn.call.source, turn.call.id)
                if turn.call is None or own not in seen:
                    turns.append(turn)
                    seen.add(own)
    turns.sort(key=lambda turn: turn.at)
    return [turn.answered(results) for turn in turns]


def turns_of(record: Plain, *, at: float | None = None) -> list[Turn]:
    """Turns that a record is about; none if it is about something else, or cannot be read.

    Results of tools are in later records: see `Turn.answered`.
    """
    calls: list[Call] = []
    spans: list[Span] = []
    with suppress(*_BROKEN):
        calls.extend(read_calls("", record, at=at))
    with suppress(*_BROKEN):
        spans.extend(read_spans(record) if is_document(record) or is_span(record) else [])
    if spans:
        return [*map(_turn, calls), *map(_tool_turn, filter(_is_tool, spans))]
    reply = opened(record)
    text, tools = _text(reply), tuple(_tools(reply))
    return [_turn(call, text, tools) for call in calls]


def _record(content: object) -> Plain | None:
    if isinstance(content, str):
        try:
            content = json.loads(content)
        except (ValueError, RecursionError):
            return None
    return cast("Plain", content) if isinstance(content, dict) else None


def _turn(
    call: Call, text: str | None = None, tools: tuple[tuple[ToolCall, str], ...] = ()
) -> Turn:
    return Turn(
        at=call.at,
        call=call,
        session=call.session or call.task or call.agent,
        text=text,
        tools=tuple(replace(tool, at=call.at) for tool, _ in tools),
        ids=tuple(name for _, name in tools),
    )


def _is_tool(span: Span) -> bool:
    own = span.attributes
    is_kind = str(own.get("openinference.span.kind", "")).upper() == "TOOL"
    return is_kind or own.get("gen_ai.operation.name") == "execute_tool"


def _tool_turn(span: Span) -> Turn:
    own = span.attributes
    tool = ToolCall(
        tool=name_in(own, *_TOOL_NAMES) or "tool",
        arguments=next((own[name] for name in _ARGUMENTS if name in own), None),
        result=next((own[name] for name in _RESULTS if name in own), None),
        at=span.start,
    )
    session = name_in(own, "gen_ai.conversation.id", "session.id") or span.id.partition("/")[0]
    return Turn(at=span.start, call=None, session=session, text=None, tools=(tool,))


def _inside(value: object, depth: int = 0) -> Iterator[Plain]:
    """Objects in an object, itself first."""
    if depth > _DEEPEST:
        return
    if isinstance(value, Mapping):
        own = cast("Plain", value)
        yield own
        for inner in own.values():
            yield from _inside(inner, depth + 1)
    elif isinstance(value, list):
        for inner in cast("list[object]", value):
            yield from _inside(inner, depth + 1)


def _tools(reply: Plain) -> Iterator[tuple[ToolCall, str]]:
    """Calls of tools, with their ids."""
    for own in _inside(reply):
        function, gemini = own.get("function"), own.get("functionCall")
        if isinstance(function, dict) and "arguments" in function:
            yield _asked(cast("Plain", function), "arguments", own.get("id"))
        elif isinstance(gemini, dict) and "name" in gemini:
            yield _asked(cast("Plain", gemini), "args", cast("Plain", gemini).get("id"))
        elif own.get("type") == "tool_use" and "name" in own:
            yield _asked(own, "input", own.get("id"))
        elif own.get("type") == "function_call" and "name" in own:
            yield _asked(own, "arguments", own.get("call_id"))


def _asked(own: Plain, arguments: str, name: object) -> tuple[ToolCall, str]:
    tool = ToolCall(tool=str(own.get("name", "tool")), arguments=own.get(arguments))
    return tool, "" if name is None else str(name)


def _results(record: Plain) -> dict[str, object]:
    found: dict[str, object] = {}
    for own in _inside(record):
        if "tool_call_id" in own and "content" in own:
            found[str(own["tool_call_id"])] = own["content"]
        elif own.get("type") == "tool_result" and "tool_use_id" in own:
            found[str(own["tool_use_id"])] = own.get("content")
        elif own.get("type") == "function_call_output" and "call_id" in own:
            found[str(own["call_id"])] = own.get("output")
    return found


def _text(reply: Plain) -> str | None:
    """What was shown of a reply; None where the log does not keep it."""
    parts: list[str] = []
    for choice in _list(reply, "choices"):
        message = choice.get("message")
        content = cast("Plain", message).get("content") if isinstance(message, dict) else None
        parts += [content] if isinstance(content, str) else []
        parts += [str(choice["text"])] if isinstance(choice.get("text"), str) else []
    for block in _list(reply, "content"):
        parts += [str(block["text"])] if block.get("type") == "text" else []
    for item in _list(reply, "output"):
        for block in _list(item, "content"):
            parts += [str(block["text"])] if block.get("type") == "output_text" else []
    for candidate in _list(reply, "candidates"):
        content = candidate.get("content")
        for block in _list(cast("Plain", content if isinstance(content, dict) else {}), "parts"):
            shown = isinstance(block.get("text"), str) and not block.get("thought")
            parts += [str(block["text"])] if shown else []
    return "".join(parts) if parts else None


def _list(holder: Plain, name: str) -> list[Plain]:
    found = holder.get(name)
    items = cast("list[Any]", found) if isinstance(found, list) else []
    return [cast("Plain", own) for own in items if isinstance(own, dict)]
