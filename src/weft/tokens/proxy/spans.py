"""Calls as spans of OpenTelemetry, in OTLP's JSON: to a file, a line each, or to a collector.

Names are those of the conventions for generative AI, so that any tool that knows them reads them,
`weft tokens ingest` among others.

Source: OTLP 1.5, JSON encoding and OTLP/HTTP; OpenTelemetry semantic conventions for generative AI:
spans.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import urllib.request
from collections.abc import Iterable, Mapping
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

from weft.core.errors import FileError
from weft.tokens.call import Call, Status
from weft.tokens.classes import TokenClass

__all__ = ["Spans", "document", "span_of", "trace_of"]

EVERY_S = 1.0
"""How often spans are sent. Chosen."""
MOST = 10_000
"""Spans that wait where a collector does not answer; more are dropped, and counted. Chosen."""
PATIENCE_S = 10.0
"""How long a collector may take [s]. Chosen: what OpenTelemetry's exporters wait."""
_PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_CLIENT, _ERROR = 3, 2
_log = logging.getLogger("weft.proxy")


class Spans:
    """Sends spans every second.

    Args:
        where: a file, or the address of a collector: http://host:4318/v1/traces.

    Raises:
        FileError: the file cannot be written to.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._waiting: list[dict[str, Any]] = []
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0
        if not self._is_address:
            self._append(b"")

    @property
    def _is_address(self) -> bool:
        return self._where.startswith(("http://", "https://"))

    def add(self, span: dict[str, Any]) -> None:
        """Send one soon."""
        if len(self._waiting) >= MOST:
            self.dropped += 1
            return
        self._waiting.append(span)

    async def open(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._every())

    async def close(self) -> None:
        """Send the rest, and end."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._send()

    async def _every(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            await self._send()

    async def _send(self) -> None:
        spans, self._waiting = self._waiting, []
        if not spans:
            return
        try:
            if self._is_address:
                await asyncio.to_thread(_post, self._where, document(spans))
            else:
                self._append(document(spans) + b"\n")
        except (OSError, ValueError, HTTPException, FileError) as error:
            _log.warning("%d spans are kept back: %s", len(spans), " ".join(str(error).split()))
            self._waiting = (spans + self._waiting)[:MOST]

    def _append(self, lines: bytes) -> None:
        try:
            with Path(self._where).open("ab") as file:
                file.write(lines)
        except OSError as error:
            raise FileError(
                need="a file for spans that can be written to",
                got=f"{self._where}: {error}",
                hint="name another, or a collector's address",
            ) from error


def _post(address: str, body: bytes) -> None:
    """Send to a collector; an error of HTTP is an OSError, too."""
    request = urllib.request.Request(address, body, {"content-type": "application/json"})
    # Straight there, as calls go: a proxy of the environment's may know nothing of a collector.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=PATIENCE_S):
        pass


def trace_of(parent: str) -> tuple[str, str]:
    """Trace and parent of a span, by a client's traceparent; a new trace if it has none.

    Source: W3C Trace Context, traceparent header.

    Example:
        >>> trace_of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")[1]
        '00f067aa0ba902b7'
    """
    match = _PARENT.fullmatch(parent)
    return (match[1], match[2]) if match else (secrets.token_hex(16), "")


def span_of(call: Call, parent: str, error: str = "") -> dict[str, Any]:
    """A call as a span.

    Args:
        call: with usage as far as it is known; what is not exact is left out.
        parent: the client's traceparent.
        error: what went wrong, or empty.
    """
    trace, above = trace_of(parent)
    usage = call.usage
    written = usage[TokenClass.CACHE_WRITE_5M] + usage[TokenClass.CACHE_WRITE_1H]
    numbers = {
        "gen_ai.usage.input_tokens": usage.input,
        "gen_ai.usage.output_tokens": usage.output,
        "gen_ai.usage.cache_read.input_tokens": usage[TokenClass.CACHE_READ],
        "gen_ai.usage.cache_creation.input_tokens": written,
        "gen_ai.usage.reasoning.output_tokens": usage[TokenClass.REASONING],
    }
    words = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": call.provider,
        "gen_ai.request.model": call.model,
        "gen_ai.response.id": call.labels.get("answer", ""),
        "gen_ai.agent.name": call.agent,
        "gen_ai.conversation.id": call.session,
        "weft.task": call.task,
        "weft.payer": call.payer,
        "weft.call": call.id,
        "weft.tier": call.tier,
        "error.type": error,
    }
    attributes = [_word(name, value) for name, value in words.items() if value]
    attributes += [
        {"key": name, "value": {"intValue": str(own.low)}}
        for name, own in numbers.items()
        if own.is_exact
    ]
    if call.status is Status.ABORTED:
        reasons = {"arrayValue": {"values": [{"stringValue": "error"}]}}
        attributes.append({"key": "gen_ai.response.finish_reasons", "value": reasons})
    start = round(call.at * 1e9)
    return {
        "traceId": trace,
        "spanId": secrets.token_hex(8),
        **({"parentSpanId": above} if above else {}),
        "name": f"chat {call.model}",
        "kind": _CLIENT,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + round((call.seconds or 0.0) * 1e9)),
        "attributes": attributes,
        "status": {} if call.status is Status.DONE else {"code": _ERROR},
    }


def document(spans: Iterable[Mapping[str, Any]]) -> bytes:
    """Spans as one request of OTLP."""
    resource = {"attributes": [_word("service.name", "weft-proxy")]}
    scope = {"scope": {"name": "weft.tokens.proxy"}, "spans": list(spans)}
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}).encode()


def _word(name: str, value: str) -> dict[str, Any]:
    return {"key": name, "value": {"stringValue": value}}
