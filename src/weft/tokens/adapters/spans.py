"""Spans of OpenTelemetry and OpenInference, from OTLP files or as exporters print them.

A span that only holds others, an agent's or a workflow's, may carry the sum of their usage. It is
no call, and is left out, but says who its children belong to.

Source: OTLP 1.5 JSON encoding; OpenTelemetry semantic conventions for generative AI.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from weft.core.errors import InputError
from weft.tokens.adapters.envelope import Plain, about, name_in, seconds, tier_name
from weft.tokens.adapters.providers import provider_name, provider_of_model
from weft.tokens.adapters.shapes import SHAPES
from weft.tokens.adapters.solve import read_numbers
from weft.tokens.call import Call, Status
from weft.tokens.usage import Usage

__all__ = ["Span", "is_document", "is_span", "read_spans", "span_calls"]

_HOLDERS = frozenset({"invoke_agent", "create_agent", "execute_tool", "invoke_workflow", "plan"})
"""Operations that are no call of a model; their usage, if they have one, is a sum of others'."""
_CALLS = frozenset({"LLM", "EMBEDDING"})
_AGENT = ("gen_ai.agent.name", "gen_ai.agent.id", "agent.name", "graph.node.id")
_SESSION = ("gen_ai.conversation.id", "session.id", "langfuse.session.id")
_TASK = ("weft.task", "task.id", "langfuse.trace.name")
_PAYER = ("weft.payer", "user.id", "enduser.id", "langfuse.user.id")
_MODEL = ("gen_ai.response.model", "gen_ai.request.model", "llm.model_name", "embedding.model_name")
_PROVIDER = ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system")
_TIER = ("gen_ai.openai.response.service_tier", "openai.response.service_tier", "weft.tier")
_BOOKED, PROXY = "weft.call", "weft"
"""Of spans of weft's own proxy: the id that it books the call by, and its name as a source. So a
ledger that both go into has the call once."""
_BROKEN = (InputError, ValueError, KeyError, TypeError, AttributeError, OverflowError)
_REFUSED = frozenset(
    {
        *("RateLimitError", "AuthenticationError", "PermissionDeniedError", "NotFoundError"),
        *("BadRequestError", "UnprocessableEntityError", "ConflictError"),
    }
)
"""Errors of the libraries of OpenAI and Anthropic for replies of 400 to 499: nothing was generated,
and nothing is billed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A span, however it was written.

    Attributes:
        id, parent: with the trace in front; a root has no parent.
        start, end: [s since 1970].
    """

    id: str
    parent: str
    start: float
    end: float
    is_error: bool
    attributes: Plain


def is_document(record: Plain) -> bool:
    """Whether a record is OTLP: resources with spans."""
    return "resourceSpans" in record or "resource_spans" in record


def is_span(record: Plain) -> bool:
    """Whether a record is one span with plain attributes, as exporters print it."""
    return isinstance(record.get("attributes"), dict) and (
        "context" in record or "span_id" in record or "spanId" in record
    )


def read_spans(record: Plain) -> Iterator[Span]:
    """Spans of a document, or the one that a record is; those that cannot be read are left out."""
    for span in _spans(record):
        if isinstance(span, Span):
            yield span


def span_calls(record: Plain, at: float | None) -> Iterator[Call]:
    """Calls of models in a document or a span.

    Raises:
        InputError: some spans cannot be read, after all others were.
    """
    del at  # spans have times
    spans = list(_spans(record))
    known = {span.id: span for span in spans if isinstance(span, Span)}
    wrong: list[Exception] = []
    for span in spans:
        found = span if isinstance(span, Exception) else _call(span, known)
        if isinstance(found, Exception):
            wrong.append(found)
        elif found is not None:
            yield found
    if wrong:
        raise _left_out(wrong, len(spans))


def _left_out(wrong: Sequence[Exception], count: int) -> Exception:
    first = wrong[0]
    if count == 1:
        return first
    is_told = isinstance(first, InputError)
    return InputError(
        need=first.need if is_told else "spans",
        got=f"{first.got if is_told else repr(first)}; {len(wrong)} of {count} spans are left out",
        hint=first.hint if is_told else "",
    )


def _is_call(attributes: Plain) -> bool:
    kind = attributes.get("openinference.span.kind")
    if kind is not None:
        return str(kind).upper() in _CALLS
    operation = attributes.get("gen_ai.operation.name")
    return operation not in _HOLDERS and any(name in attributes for name in _MODEL[:2])


def _call(span: Span, known: Plain) -> Call | Exception | None:
    """The call that a span is, why it cannot be read, or None if it is none."""
    if not _is_call(span.attributes):
        return None
    try:
        return _made(span, known)
    except _BROKEN as error:
        return error


def _made(span: Span, known: Plain) -> Call:
    own = span.attributes
    booked = name_in(own, _BOOKED)
    line = list(_ancestors(span, known))
    shape = SHAPES["openinference" if "openinference.span.kind" in own else "otel"]
    status = _status(span)
    skew = _skew(span, known)
    model = name_in(own, *_MODEL)
    return Call(
        id=booked or span.id,
        source=PROXY if booked else "otel",
        at=span.start,
        seconds=span.end - span.start if span.end >= span.start else None,
        model=model.lower(),
        provider=provider_name(name_in(own, *_PROVIDER)) or provider_of_model(model),
        usage=_usage(span, shape.name, status),
        status=status,
        payer=_inherited(line, _PAYER),
        agent=_inherited(line, _AGENT) or ("" if booked else name_in(own, "service.name")),
        task=_inherited(line, _TASK),
        session=_inherited(line, _SESSION),
        parent=span.parent,
        tier=tier_name(name_in(own, *_TIER)),
        arm=_inherited(line, ("weft.arm",)),
        passed=about({"passed": own.get("weft.passed")}, {}).get("passed"),
        labels={"skew": skew} if skew else {},
    )


def _usage(span: Span, shape: str, status: Status) -> Usage:
    kind = str(span.attributes.get("error.type", ""))
    refused = kind in _REFUSED or (len(kind) == 3 and kind.startswith("4") and kind.isdecimal())
    has_counts = any(".usage." in name or ".token_count." in name for name in span.attributes)
    if refused and not has_counts:
        return Usage()
    most = span.attributes.get("gen_ai.request.max_tokens")
    return read_numbers(
        SHAPES[shape],
        span.attributes,
        broke_off=status is not Status.DONE,
        max_tokens=most if isinstance(most, int) else None,
    )


def _status(span: Span) -> Status:
    reasons = span.attributes.get("gen_ai.response.finish_reasons")
    if isinstance(reasons, list | tuple) and "error" in reasons:
        return Status.ABORTED
    return Status.FAILED if span.is_error else Status.DONE


def _skew(span: Span, known: Plain) -> str:
    """What is wrong with its times, if anything is."""
    if span.end < span.start:
        return f"ended {span.start - span.end:.3f} s before it began"
    parent = cast("Span | None", known.get(span.parent))
    if parent is not None and span.start < parent.start:
        return f"began {parent.start - span.start:.3f} s before its parent"
    return ""


def _ancestors(span: Span, known: Plain) -> Iterator[Span]:
    """The span and those that it lies in, innermost first."""
    seen: set[str] = set()
    at: Span | None = span
    while at is not None and at.id not in seen:
        yield at
        seen.add(at.id)
        at = cast("Span | None", known.get(at.parent))


def _inherited(line: list[Span], names: tuple[str, ...]) -> str:
    return next((found for span in line if (found := name_in(span.attributes, *names))), "")


def _printed(record: Plain) -> Span:
    """A span as OpenTelemetry's console exporter and Phoenix write it."""
    context = cast("Plain", record.get("context") or {})
    trace = name_in(record, "trace_id", "traceId") or name_in(context, "trace_id")
    own = _named(name_in(record, "span_id", "spanId") or name_in(context, "span_id"))
    parent = name_in(record, "parent_id", "parentSpanId", "parent_span_id")
    status = record.get("status", record.get("status_code", ""))
    code = cast("Plain", status).get("status_code") if isinstance(status, dict) else status
    start = seconds(record.get("start_time", record.get("startTimeUnixNano")))
    end = record.get("end_time", record.get("endTimeUnixNano"))
    return Span(
        id=f"{_hex(trace)}/{_hex(own)}",
        parent=f"{_hex(trace)}/{_hex(parent)}" if parent else "",
        start=start,
        end=start if end is None else seconds(end),
        is_error="ERROR" in str(code).upper(),
        attributes=_flat(cast("Plain", record["attributes"])),
    )


def _hex(name: str) -> str:
    return name.lower().removeprefix("0x")


def _flat(attributes: Plain, before: str = "") -> dict[str, Any]:
    """Attributes by full names; some exporters nest them by their dots."""
    flat: dict[str, Any] = {}
    for name, value in attributes.items():
        if isinstance(value, dict):
            flat.update(_flat(cast("Plain", value), f"{before}{name}."))
        else:
            flat[before + name] = value
    return flat


def _spans(record: Plain) -> Iterator[Span | Exception]:
    """Spans of a document, or the one that a record is; why, in place of one that is broken."""
    if not is_document(record):
        yield _printed(record)
        return
    for resource in _list(record, "resourceSpans", "resource_spans"):
        about_all = _attributes(cast("Plain", resource.get("resource") or {}))
        for scope in _list(resource, "scopeSpans", "scope_spans", "instrumentationLibrarySpans"):
            for span in _list(scope, "spans"):
                try:
                    found: Span | Exception = _encoded(span, about_all)
                except _BROKEN as error:
                    found = error
                yield found


def _named(own: str) -> str:
    if not own:
        raise InputError(
            need="a span with an id",
            got="one without",
            hint="without ids nobody can tell the same span again from another one",
        )
    return own


def _encoded(span: Plain, about_all: Plain) -> Span:
    trace, own = name_in(span, "traceId", "trace_id"), _named(name_in(span, "spanId", "span_id"))
    parent = name_in(span, "parentSpanId", "parent_span_id")
    status = cast("Plain", span.get("status") or {})
    start = seconds(span.get("startTimeUnixNano", span.get("start_time_unix_nano")))
    end = span.get("endTimeUnixNano", span.get("end_time_unix_nano"))
    return Span(
        id=f"{trace}/{own}",
        parent=f"{trace}/{parent}" if parent else "",
        start=start,
        end=start if end is None else seconds(end),
        is_error=status.get("code") in (2, "STATUS_CODE_ERROR"),
        attributes={**about_all, **_attributes(span)},
    )


def _attributes(holder: Plain) -> dict[str, Any]:
    return {
        str(entry["key"]): _value(entry.get("value") or {}) for entry in _list(holder, "attributes")
    }


def _value(value: Plain) -> object:
    """A value of OTLP: an object whose one key is its type. Integers are text in JSON."""
    for kind, own in value.items():
        if kind == "intValue":
            return int(own)
        if kind == "arrayValue":
            return [_value(entry) for entry in _list(own, "values")]
        if kind != "kvlistValue":
            return own
    return None


def _list(holder: Plain, *names: str) -> list[Any]:
    for name in names:
        found = holder.get(name)
        if isinstance(found, list):
            return cast("list[Any]", found)
    return []
