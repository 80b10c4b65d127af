"""What stands around a usage in a log: when, who, for what, and how it ended.

Logs wrap a provider's reply in objects of their own. Beside the reply, or in its `metadata`, they
may say who asked; the names looked for are those of `Call`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, TypeAlias, cast

from weft.core.errors import InputError

__all__ = [
    "Plain",
    "about",
    "content_id",
    "is_batch",
    "most_tokens",
    "name_in",
    "opened",
    "seconds",
    "tier_name",
    "when",
]

Plain: TypeAlias = Mapping[str, Any]
"""An object of JSON."""

_INNER = ("response", "body", "result", "message", "raw_response")
"""Under which a reply lies; OpenAI's batches have response and body, Anthropic's result and
message, LiteLLM's callbacks and most logs of people's own one of the first."""
_NAMES = MappingProxyType(
    {
        **{name: name for name in ("payer", "agent", "task", "session", "parent", "arm")},
        "session_id": "session",
        "conversation_id": "session",
        "task_id": "task",
        "user": "payer",
    }
)
"""Fields of a record, by the field of `Call` that they give; the latter's own name goes first."""
_SAID = frozenset({*_NAMES, "passed", "seconds", "metadata"})
_TIMES = ("at", "timestamp", "created", "created_at", "createTime", "time")
_MOST = ("max_completion_tokens", "max_output_tokens", "max_tokens", "maxOutputTokens")
_STANDARD = frozenset({"", "default", "standard", "auto", "on_demand", "none"})

# A number of seconds of this century has ten digits; clocks in other units show it by theirs.
_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
_LAST = 1e20
"""In billionths of a second the year 5138; no clock says more."""


def opened(record: Plain) -> Plain:
    """The reply in a record, which may be all of it."""
    inner = record
    for _ in _INNER:
        if _is_reply(inner):
            break
        for key in _INNER:
            found = inner.get(key)
            if isinstance(found, dict):
                inner = cast("Plain", found)
                break
        else:
            break
    return inner


def is_batch(record: Plain, inner: Plain) -> bool:
    """Whether a reply is a line of a batch's results."""
    return inner is not record and "custom_id" in record


def _is_reply(record: Plain) -> bool:
    return "usage" in record or "usageMetadata" in record or "usage_metadata" in record


def about(outer: Plain, inner: Plain) -> dict[str, Any]:
    """Fields of a call that a record says itself: names, outcome, duration.

    Where a clock was set back while it ran, its duration is not known, and a label says so.

    Raises:
        InputError: an outcome or a duration is none.
    """
    told: dict[str, Any] = {}
    places = [outer] if outer is inner else [outer, inner]
    for place in places:
        found = _SAID & place.keys()
        for key in found:
            value = place[key]
            if key == "metadata":
                if isinstance(value, dict) and value:
                    places.append(cast("Plain", value))
            elif key == "passed":
                if value is not None:
                    told.setdefault(key, _outcome(value))
            elif key == "seconds":
                took = None if value is None else _duration(value)
                if took is not None and took < 0.0:
                    told.setdefault("labels", {"skew": f"took {took:g} s"})
                elif took is not None:
                    told.setdefault(key, took)
            elif _NAMES[key] == key or _NAMES[key] not in found:
                name = name_in(place, key)
                if name:
                    told.setdefault(_NAMES[key], name)
    return told


def name_in(place: Plain, *names: str) -> str:
    """The first of some fields that holds a name; empty for none."""
    for name in names:
        value = place.get(name)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
    return ""


def _outcome(value: object) -> bool:
    if value in (True, False, 1, 0):
        return bool(value)
    word = str(value).strip().lower()
    if word in ("true", "false"):
        return word == "true"
    raise InputError(
        need="passed as true or false", got=repr(value)[:80], hint="leave it out if it is not known"
    )


def _duration(value: object) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(cast("str", value))
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            need="a number of seconds", got=repr(value)[:80], hint="leave it out if it is not known"
        ) from None


def when(outer: Plain, inner: Plain, default: float | None) -> float:
    """When a call began [s since 1970].

    Raises:
        InputError: nobody says, or it is no time.
    """
    for place in (outer, inner):
        for name in _TIMES:
            value = place.get(name)
            if value is not None:
                return seconds(value)
    if default is not None:
        return default
    raise InputError(
        need=f"a record with a time: {', '.join(_TIMES)}",
        got=f"one with {', '.join(sorted(outer)[:12])}",
        hint="add one when writing the log, or give a time for all of them (--at)",
    )


def seconds(value: object) -> float:
    """A time as logs write it [s since 1970]; without a zone it is UTC.

    Raises:
        InputError: it is no time.

    Example:
        >>> seconds("2026-11-01T00:00:00Z"), seconds(1793491200_000), seconds("1793491200")
        (1793491200.0, 1793491200.0, 1793491200.0)
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError, OverflowError):
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            raise _no_time(value) from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not abs(number) < _LAST:
        raise _no_time(value)
    for least, parts in _UNITS:
        if abs(number) >= least:
            return number / parts
    return number


def _no_time(value: object) -> InputError:
    return InputError(
        need="a time: seconds since 1970, or as in 2026-11-01T12:00:00Z",
        got=repr(value)[:80],
        hint="see how the log writes its times",
    )


def most_tokens(outer: Plain, inner: Plain) -> int | None:
    """The most that was allowed to be generated, where the request is logged, too."""
    request = outer.get("request")
    asked: Plain = cast("Plain", request) if isinstance(request, dict) else {}
    for place in (asked, inner, outer):
        for name in _MOST:
            value = place.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                return value
    return None


def tier_name(given: object, *, batch: bool = False) -> str:
    """A provider's tier; empty for the standard one.

    Example:
        >>> tier_name("default"), tier_name("flex"), tier_name(None, batch=True)
        ('', 'flex', 'batch')
    """
    name = str(given or "").lower().removeprefix("on_demand_")
    if batch:
        return "batch"
    return "" if name in _STANDARD else name


def content_id(record: object) -> str:
    """A name for a record that has none: the same content, the same name."""
    return "sha-" + hashlib.sha256(repr(record).encode()).hexdigest()[:24]
