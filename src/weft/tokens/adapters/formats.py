"""The formats of records that calls are read from, and how to tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from weft.core.errors import InputError
from weft.tokens.adapters.envelope import Plain
from weft.tokens.adapters.gateway import is_litellm, litellm_calls
from weft.tokens.adapters.own import is_own, own_calls
from weft.tokens.adapters.replies import anthropic_calls, gemini_calls, is_reply_of, openai_calls
from weft.tokens.adapters.shapes import SHAPES
from weft.tokens.adapters.solve import read_numbers
from weft.tokens.adapters.spans import is_document, is_span, span_calls
from weft.tokens.call import Call
from weft.tokens.usage import Usage

__all__ = ["FORMATS", "Format", "detect", "find_format", "read_call", "read_calls", "read_usage"]

_Reader: TypeAlias = Callable[[Plain, float | None], Iterator[Call]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One format of records: its name, and how calls are read from one."""

    name: str
    calls: _Reader


FORMATS = {
    form.name: form
    for form in (
        Format(name="weft", calls=own_calls),
        Format(name="otel", calls=span_calls),
        Format(name="litellm", calls=litellm_calls),
        Format(name="openai-chat", calls=openai_calls),
        Format(name="openai-responses", calls=openai_calls),
        Format(name="anthropic", calls=anthropic_calls),
        Format(name="gemini", calls=gemini_calls),
    )
}
"""By name. OpenInference's spans are among "otel"."""


def detect(record: Plain) -> str:
    """The format of a record, by what stands in it.

    Raises:
        InputError: it is none that is known.

    Example:
        >>> detect({"object": "chat.completion", "usage": {"prompt_tokens": 3}})
        'openai-chat'
    """
    if is_own(record):
        return "weft"
    if is_document(record) or is_span(record):
        return "otel"
    if is_litellm(record):
        return "litellm"
    found = is_reply_of(record)
    if not found:
        raise InputError(
            need=f"a record of one of these: {', '.join(FORMATS)}",
            got=f"one with {', '.join(sorted(map(str, record))[:12]) or 'nothing'}",
            hint="a provider's reply with its usage is one, as it is or under 'response'",
        )
    return found


def find_format(name: str) -> Format:
    """A format by its name.

    Raises:
        InputError: there is no such format.
    """
    if name not in FORMATS:
        raise InputError(
            need="a format that is known", got=repr(name), hint=f"there are {', '.join(FORMATS)}"
        )
    return FORMATS[name]


def read_calls(form: str, record: Plain, *, at: float | None = None) -> Iterator[Call]:
    """Calls that a record is about: one, none, or as many as a document of spans has.

    Args:
        form: the format, or empty to find out.
        record: an object of JSON.
        at: the time of calls that have none of their own [s since 1970].

    Raises:
        InputError: there is no such format, or the record is not of it.
    """
    return find_format(form or detect(record)).calls(record, at)


def read_call(form: str, record: Plain, *, at: float | None = None) -> Call:
    """The one call that a record is about.

    Raises:
        InputError: it is about none, or several.

    Example:
        >>> reply = {"id": "1", "object": "chat.completion", "created": 1_793_491_200,
        ...     "model": "gpt-5", "usage": {"prompt_tokens": 20_000, "completion_tokens": 3_000,
        ...     "prompt_tokens_details": {"cached_tokens": 16_000},
        ...     "completion_tokens_details": {"reasoning_tokens": 2_500}}}
        >>> call = read_call("", reply)
        >>> call.model, dict(call.usage.counts)[next(iter(call.usage.counts))]
        ('gpt-5', 4000)
    """
    calls = list(read_calls(form, record, at=at))
    if len(calls) != 1:
        raise InputError(
            need="a record of one call", got=f"{len(calls)} calls", hint="read_calls gives them all"
        )
    return calls[0]


def read_usage(
    shape: str,
    payload: Plain,
    *,
    broke_off: bool = False,
    max_tokens: int | None = None,
) -> Usage:
    """Tokens by class, from what a provider reports.

    Args:
        shape: what the numbers mean: a name of `SHAPES`.
        payload: the object that holds them: `usage`, `usageMetadata` or a span's attributes.
        broke_off: the stream ended before its end: what was generated is known from below.
        max_tokens: the most that could be generated, then or where nothing was reported.

    Raises:
        InputError: there is no such shape, or the numbers cannot be: negative, not whole, a part
            larger than its whole, a total that is not the sum of its parts.

    Example:
        >>> read_usage("anthropic", {"input_tokens": 7, "cache_read_input_tokens": 90,
        ...     "cache_creation_input_tokens": 3, "output_tokens": 5}).input
        100
    """
    if shape not in SHAPES:
        raise InputError(
            need="a shape of usage that is known",
            got=repr(shape),
            hint=f"there are {', '.join(SHAPES)}",
        )
    return read_numbers(SHAPES[shape], payload, broke_off=broke_off, max_tokens=max_tokens)
