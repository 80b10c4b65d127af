"""Calls of tools as they are compared: names, arguments and results without what never repeats."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from weft.core.errors import InputError

__all__ = ["ToolCall", "signature"]

_VOLATILE = re.compile(
    r"(request|call|trace|span|message|correlation|idempotency)_?(id|key)|nonce|timestamp|now|etag",
    re.IGNORECASE,
)
"""Names of arguments that differ from call to call and mean nothing."""
_VARYING = (
    (re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.IGNORECASE), "<uuid>"),
    (
        re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?"),
        "<time>",
    ),
    (re.compile(r"\b\d+(?:\.\d+)?\s?(?:ms|s|sec|seconds)\b"), "<duration>"),
    (re.compile(r"\b0x[0-9a-f]{6,16}\b", re.IGNORECASE), "<address>"),
    (re.compile(r"\s+"), " "),
)
"""What in text never repeats: names that machines make, times, how long something took. Other
numbers stay, since they tell the second page from the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A tool that was called.

    Attributes:
        tool: its name.
        arguments: plain data, or text that is JSON.
        result: what it said, likewise; None if that is not known.
        at: when [s].
        usd: what the step cost, tokens included [usd].
        progress: made since the call before.
    """

    tool: str
    arguments: object = None
    result: object = None
    at: float = 0.0
    usd: float = 0.0
    progress: float = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.at) or not 0.0 <= self.usd < math.inf or self.progress < 0.0:
            raise InputError(
                need="a time, and amounts of at least zero",
                got=f"at {self.at}, {self.usd} usd, progress {self.progress}",
                hint="leave out what is not known",
            )


def signature(call: ToolCall) -> str:
    """What two calls have in common that do and find the same.

    Example:
        >>> one = ToolCall(tool="read", arguments='{"path": "a.py", "request_id": "1"}')
        >>> two = ToolCall(tool="read", arguments={"request_id": "2", "path": "a.py"})
        >>> next_page = ToolCall(tool="read", arguments={"path": "a.py", "page": 2})
        >>> signature(one) == signature(two), signature(one) == signature(next_page)
        (True, False)
    """
    plain = [call.tool, _plain(call.arguments), _plain(call.result)]
    text = json.dumps(plain, sort_keys=True, default=str, separators=(",", ":"))
    return f"{call.tool}#{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"


def _plain(value: object) -> object:
    if isinstance(value, str):
        return _parsed(value)
    if isinstance(value, Mapping):
        told = cast("Mapping[str, Any]", value)
        return {
            str(name): _plain(own)
            for name, own in told.items()
            if not _VOLATILE.fullmatch(str(name)) and own is not None
        }
    if isinstance(value, list | tuple):
        return [_plain(own) for own in cast("list[object]", value)]
    return value


def _parsed(text: str) -> object:
    if text.lstrip()[:1] in ("{", "["):
        try:
            return _plain(json.loads(text))
        except (ValueError, RecursionError):
            pass  # text that only looks like JSON is compared as text
    for pattern, name in _VARYING:
        text = pattern.sub(name, text)
    return text.strip()
