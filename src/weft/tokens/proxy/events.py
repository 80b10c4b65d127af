"""Server-sent events, cut out of a stream of bytes as they are.

Source: WHATWG HTML, server-sent events: parsing an event stream.
"""

from __future__ import annotations

import json
import re
from typing import Any, cast

__all__ = ["DONE", "Events", "data_of", "event_of"]

DONE = b"[DONE]"
"""Data of the last event of a chat. Source: OpenAI API reference, chat completions: stream."""
_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE = re.compile(rb"\r\n|\n|\r")


class Events:
    r"""Cuts bytes into events, each with the blank line at its end.

    Example:
        >>> events = Events()
        >>> events.feed(b"data: 1\n\ndata: 2"), events.rest
        ([b'data: 1\n\n'], b'data: 2')
        >>> events.feed(b"\n\n")
        [b'data: 2\n\n']
    """

    def __init__(self) -> None:
        self.rest = b""
        """What no blank line came after yet."""

    def feed(self, data: bytes) -> list[bytes]:
        """Events that end in this data."""
        data = self.rest + data if self.rest else data
        found: list[bytes] = []
        start = 0
        if b"\r" not in data:
            while (end := data.find(b"\n\n", start)) >= 0:
                found.append(data[start : end + 2])
                start = end + 2
        else:
            for match in _END.finditer(data):
                found.append(data[start : match.end()])
                start = match.end()
        self.rest = data[start:]
        return found


def data_of(event: bytes) -> bytes:
    r"""The data of an event; empty if it has none, as comments do.

    Example:
        >>> data_of(b": ping\n\n"), data_of(b"event: x\ndata: {}\n\n")
        (b'', b'{}')
    """
    if event.startswith(b"data:") and event.find(b"\n") == len(event) - 2:
        return event[5:].strip()
    lines = (line for line in _LINE.split(event) if line.startswith(b"data:"))
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines).strip()


def event_of(data: bytes) -> dict[str, Any] | None:
    """An event's data as an object of JSON; None if it is none."""
    try:
        plain: object = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", plain) if isinstance(plain, dict) else None
