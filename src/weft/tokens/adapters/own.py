"""Calls in weft's own words: one object of JSON each, with usage by class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, cast

from weft.core.errors import InputError
from weft.tokens.adapters.envelope import Plain, seconds
from weft.tokens.adapters.shape import MOST
from weft.tokens.call import Call, Status
from weft.tokens.classes import TokenClass
from weft.tokens.count import NONE, UNKNOWN, Count, exactly
from weft.tokens.usage import Usage

__all__ = ["call_plain", "is_own", "own_calls"]

_KIND = "call"
_SUMS = ("input", "output")
_KINDS: dict[str, tuple[type, ...]] = {
    "at": (int, float),
    "seconds": (int, float, type(None)),
    "passed": (bool, type(None)),
    "labels": (dict,),
}
"""Of fields that are no text."""
_FIELDS = frozenset(field.name for field in fields(Call)) - {"usage"}


def call_plain(call: Call) -> dict[str, Any]:
    """A call as plain data. A count is a number, or its two ends, of which the upper may be null.

    Example:
        >>> call = Call(id="1", source="proxy", at=0.0, model="m", usage=Usage.of(text=3))
        >>> plain = call_plain(call)
        >>> plain["usage"], next(own_calls(plain, None)).usage.output
        ({'text': 3}, 3)
    """
    told = {
        name: value for name in sorted(_FIELDS) if (value := getattr(call, name)) not in ("", None)
    }
    usage = {leaf.value: _ends(own) for leaf, own in call.usage.counts.items()}
    sums = {name: getattr(call.usage, name) for name in _SUMS}
    loose = {name: _ends(own) for name, own in sums.items() if not call.usage.is_exact}
    return {"weft": _KIND, **told, "labels": dict(call.labels), "usage": usage | loose}


def _ends(count: Count) -> object:
    return count.low if count.is_exact else [count.low, count.high]


def is_own(record: Plain) -> bool:
    """Whether a record is a call in weft's own words."""
    return record.get("weft") == _KIND


def own_calls(record: Plain, at: float | None) -> Iterator[Call]:
    """The call.

    Raises:
        InputError: a field, a class or a count is none.
    """
    usage = cast("dict[str, object]", record.get("usage") or {})
    told: dict[str, Any] = {name: record[name] for name in _FIELDS if name in record}
    unknown = sorted(set(record) - _FIELDS - {"weft", "usage"})
    classes = {leaf.value for leaf in TokenClass}
    strange = sorted(set(usage) - classes - set(_SUMS))
    if unknown or strange:
        raise InputError(
            need="a call with fields of Call, and usage by TokenClass",
            got=f"unknown {', '.join(unknown + strange)}",
            hint=f"classes are {', '.join(sorted(classes))}",
        )
    told.setdefault("at", at)
    if isinstance(told["at"], str):
        told["at"] = seconds(told["at"])
    for name, value in told.items():
        _check(name, value)
    told["status"] = Status(told.get("status", "done"))
    yield Call(
        **told,
        usage=Usage(
            counts={
                TokenClass(name): _count(own) for name, own in usage.items() if name in classes
            },
            input=_count(usage["input"]) if "input" in usage else UNKNOWN,
            output=_count(usage["output"]) if "output" in usage else UNKNOWN,
        ),
    )


def _check(name: str, value: object) -> None:
    kinds = _KINDS.get(name, (str,))
    is_good = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    if is_good and name == "labels":
        is_good = all(isinstance(own, str) for own in cast("dict[str, object]", value).values())
    if not is_good:
        raise InputError(
            need=f"{name} as a field of Call",
            got=f"{value!r:.80}",
            hint="leave out what is not known",
        )


def _count(plain: object) -> Count:
    match plain:
        case bool():
            pass
        case int() if plain <= MOST:
            return exactly(plain) if plain else NONE
        case [int() as low, int() | None as high] if max(low, high or 0) <= MOST:
            return Count(low, high)
        case _:
            pass
    raise InputError(
        need=f"a count: a number to {MOST}, or its ends as [low, high], where high may be null",
        got=repr(plain)[:80],
        hint="leave it out where there are none",
    )
