"""Replies of providers, as their libraries return them and logs keep them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from weft.core.errors import InputError
from weft.tokens.adapters.envelope import (
    Plain,
    about,
    content_id,
    is_batch,
    most_tokens,
    name_in,
    opened,
    tier_name,
    when,
)
from weft.tokens.adapters.providers import provider_name, provider_of_model
from weft.tokens.adapters.shape import tokens_in
from weft.tokens.adapters.shapes import SHAPES
from weft.tokens.adapters.solve import read_numbers
from weft.tokens.call import Call, Status

__all__ = ["anthropic_calls", "gemini_calls", "is_reply_of", "modalities", "openai_calls"]

_EMPTY: Plain = {}
_ENDED = ("finishReason", "finish_reason")


def is_reply_of(record: Plain) -> str:
    """The format of a reply, wrapped or not; empty if it is none.

    Raises:
        InputError: it is a part of one.
    """
    inner = opened(record)
    kind = inner.get("object")
    if kind in ("chat.completion", "chat.completion.chunk", "text_completion"):
        return "openai-chat"
    if kind == "response":
        return "openai-responses"
    if "usageMetadata" in inner or "usage_metadata" in inner:
        return "gemini"
    usage = inner.get("usage")
    if isinstance(usage, dict):
        if inner.get("type") == "message_delta":
            raise InputError(
                need="a reply",
                got="message_delta, an event of a stream",
                hint="log the message that the stream adds up to",
            )
        if "prompt_tokens" in usage:
            return "openai-chat"
        if inner.get("type") == "message" or "cache_read_input_tokens" in usage:
            return "anthropic"
        if "input_tokens_details" in usage:
            return "openai-responses"
    elif inner.get("type") == "message" and "stop_reason" in inner:
        return "anthropic"
    return ""


def openai_calls(record: Plain, at: float | None) -> Iterator[Call]:
    """Chat completions and responses, of OpenAI and of those who reply in its form."""
    inner, outer = opened(record), record
    usage = _usage(inner, "usage")
    if inner.get("object") == "chat.completion.chunk" and usage is None:
        return  # a part of an answer; the last one has the usage
    model = name_in(inner, "model") or name_in(outer, "model")
    provider = provider_name(name_in(outer, "provider") or name_in(inner, "provider"))
    provider = provider or provider_of_model(model)
    responses = inner.get("object") == "response" or "input_tokens" in (usage or _EMPTY)
    beside = provider == "x-ai"
    shape = "openai-responses" if responses else "xai-chat" if beside else "openai-chat"
    status = _openai_status(inner, has_usage=usage is not None)
    yield _call(
        record,
        inner,
        source="openai",
        shape=shape,
        usage=usage,
        status=status,
        at=at,
        provider=provider,
        model=model,
        tier=tier_name(inner.get("service_tier"), batch=is_batch(outer, inner)),
    )


def _openai_status(inner: Plain, *, has_usage: bool) -> Status:
    if inner.get("error"):
        return Status.FAILED
    if inner.get("object") == "response":
        ended = inner.get("status") in ("completed", "incomplete", None)
        return Status.DONE if ended and has_usage else Status.ABORTED
    choices = inner.get("choices")
    reasons = [
        cast("Plain", choice).get("finish_reason")
        for choice in cast("list[Any]", choices if isinstance(choices, list) else [])
        if isinstance(choice, dict)
    ]
    stopped = bool(reasons) and None in reasons
    return Status.ABORTED if stopped and not has_usage else Status.DONE


def anthropic_calls(record: Plain, at: float | None) -> Iterator[Call]:
    """Messages of Anthropic's."""
    inner, outer = opened(record), record
    usage = _usage(inner, "usage")
    # What a stream begins with has input and a first few tokens, and no reason to have stopped.
    cut = inner.get("type") == "message" and inner.get("stop_reason", "") is None
    status = Status.FAILED if inner.get("error") else Status.ABORTED if cut else Status.DONE
    yield _call(
        record,
        inner,
        source="anthropic",
        shape="anthropic",
        usage=usage,
        status=status,
        at=at,
        provider=provider_name(name_in(outer, "provider") or "anthropic"),
        model=name_in(inner, "model") or name_in(outer, "model"),
        tier=tier_name((usage or _EMPTY).get("service_tier"), batch=is_batch(outer, inner)),
    )


def gemini_calls(record: Plain, at: float | None) -> Iterator[Call]:
    """Replies of Gemini, from its own API or Vertex AI."""
    inner, outer = opened(record), record
    usage = _usage(inner, "usageMetadata") or _usage(inner, "usage_metadata")
    traffic = (usage or _EMPTY).get("trafficType")
    candidates = inner.get("candidates")
    some = cast("list[Any]", candidates if isinstance(candidates, list) else [])
    # "If empty, the model has not stopped generating tokens": Gemini API reference, Candidate.
    has_ended = not some or any(name in own for own in some for name in _ENDED)
    yield _call(
        record,
        inner,
        source="gemini",
        shape="gemini",
        usage=None if usage is None else modalities(usage),
        status=Status.DONE if has_ended else Status.ABORTED,
        at=at,
        provider=provider_name(name_in(outer, "provider")) or "google",
        model=name_in(inner, "modelVersion", "model_version", "model") or name_in(outer, "model"),
        tier=tier_name(traffic, batch=is_batch(outer, inner)),
        own_id=name_in(inner, "responseId", "response_id"),
    )


def modalities(usage: Plain) -> dict[str, object]:
    """A usage of Gemini's with its lists of modalities as objects, so that names are paths.

    A document is read as images of its pages; text is what remains.

    Example:
        >>> modalities({"promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 7}]})
        {'promptTokensDetails': {'AUDIO': 7, 'IMAGE': 0, 'VIDEO': 0}}
    """
    plain = dict(usage)
    for name, other in _LISTS:
        listed = plain.get(name, plain.get(other))
        if isinstance(listed, list):
            found = {"AUDIO": 0, "IMAGE": 0, "VIDEO": 0}
            for entry in cast("list[Plain]", listed):
                kind = str(entry.get("modality", ""))
                kind = "IMAGE" if kind == "DOCUMENT" else kind
                if kind in found:
                    count = entry.get("tokenCount", entry.get("token_count"))
                    found[kind] += tokens_in(0 if count is None else count, f"{name}.{kind}")
            plain[name] = found
    return plain


_LISTS = (
    ("promptTokensDetails", "prompt_tokens_details"),
    ("cacheTokensDetails", "cache_tokens_details"),
    ("candidatesTokensDetails", "candidates_tokens_details"),
)


def _usage(inner: Plain, name: str) -> Plain | None:
    usage = inner.get(name)
    return cast("Plain", usage) if isinstance(usage, dict) else None


def _call(
    outer: Plain,
    inner: Plain,
    *,
    source: str,
    shape: str,
    usage: Mapping[str, object] | None,
    status: Status,
    at: float | None,
    provider: str,
    model: str,
    tier: str,
    own_id: str = "",
) -> Call:
    cut = usage is None or status is Status.ABORTED
    return Call(
        id=own_id
        or name_in(inner, "id")
        or name_in(outer, "id", "request_id")
        or content_id(outer),
        source=source,
        at=when(outer, inner, at),
        model=model.lower(),
        provider=provider,
        usage=read_numbers(
            SHAPES[shape],
            usage or _EMPTY,
            broke_off=status is Status.ABORTED,
            max_tokens=most_tokens(outer, inner) if cut else None,
        ),
        status=status,
        tier=tier,
        **about(outer, inner),
    )
