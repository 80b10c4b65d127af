"""What a client asks for: read, bounded, and written anew for the provider.

A request is always written anew from what was read, so that the provider sees the limits that were
reserved for: JSON may hold a name twice, and readers differ in which of them counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from weft.core.errors import InputError
from weft.tokens.proxy.settings import Settings

__all__ = ["Api", "Request", "read_request"]

IMAGE_TOKENS = 48_169
"""The most that a picture can be. Source: OpenAI, images and vision, cost of gpt-4o-mini: 2,833 and
5,667 for each of eight tiles, more than of any other model."""
TEMPLATE_TOKENS = 1024
"""What servers add of their own: a chat template's words, names of tools. Chosen: the templates of
open models that declare tools are a quarter of it."""
MOST_CHOICES = 128
"""Source: OpenAI API reference, chat completions: n."""
_MEDIA = (b'"image_url"', b'"input_image"', b'"input_file"', b'"file"')
_KEPT = ("previous_response_id", "conversation", "prompt")
"""Fields of a response that refer to text which the provider keeps."""
_json = json.JSONEncoder(separators=(",", ":")).encode
_SENT_TOOLS = frozenset({"function", "custom"})
"""Tools that run at the client's; results of others are read without being sent."""


class Api(StrEnum):
    """Which interface of OpenAI's."""

    CHAT = "chat"
    RESPONSES = "responses"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request, read.

    Attributes:
        api: whose form it has.
        model: as it was asked for.
        tier: of service, or empty.
        is_stream: whether the answer is to be streamed.
        wants_usage: whether the client asked for usage in the stream.
        choices: answers that are asked for.
        wanted: tokens of each, at most.
        input_bound: tokens that can be read at most: none is shorter than a byte of what is sent.
        hears, speaks: whether sound is sent, or asked for.
        plain: all that it says.
        limit_field: by which the provider is held to a length where the client names none.
    """

    api: Api
    model: str
    tier: str
    is_stream: bool
    wants_usage: bool
    choices: int
    wanted: int
    input_bound: int
    hears: bool
    speaks: bool
    plain: dict[str, Any]
    limit_field: str

    def body(self, limit: int) -> bytes:
        """What to send, with each answer held to so many tokens."""
        plain = dict(self.plain)
        for name in _limits(self.api):
            if plain.get(name) is None:
                plain.pop(name, None)
            else:
                plain[name] = limit
        if not any(name in plain for name in _limits(self.api)):
            plain[self.limit_field] = limit
        if self.is_stream and self.api is Api.CHAT:
            plain["stream_options"] = {**_options(plain), "include_usage": True}
        return _json(plain).encode()


def read_request(api: Api, raw: bytes, settings: Settings) -> Request:
    """Read a request.

    Raises:
        InputError: it is no JSON, or a part that limits depend on is not what it has to be.
    """
    plain = _object(raw)
    model = plain.get("model")
    if not isinstance(model, str) or not model:
        raise _wrong("the name of a model as model", model)
    if api is Api.RESPONSES and plain.get("background"):
        raise InputError(
            need="an answer that is waited for",
            got="background: true",
            hint="leave it out: what nobody waits for cannot be settled",
        )
    if not isinstance(plain.get("stream"), bool | None):
        raise _wrong("true or false as stream", plain["stream"])
    asked = [_whole(plain[name], name) for name in _limits(api) if plain.get(name) is not None]
    choices = plain.get("n") if api is Api.CHAT else None
    num_choices = 1 if choices is None else _whole(choices, "n")
    if num_choices > MOST_CHOICES:
        raise _wrong(f"at most {MOST_CHOICES} choices as n", choices)
    return Request(
        api=api,
        model=model,
        tier=str(plain.get("service_tier") or ""),
        is_stream=plain.get("stream") is True,
        wants_usage=_options(plain).get("include_usage") is True,
        choices=num_choices,
        wanted=min(asked, default=settings.max_tokens),
        input_bound=_input_bound(plain, raw, settings.context_tokens),
        hears=b'"input_audio"' in raw,
        speaks="audio" in str(plain.get("modalities") or ""),
        plain=plain,
        limit_field="max_output_tokens" if api is Api.RESPONSES else settings.limit_field,
    )


def _limits(api: Api) -> tuple[str, ...]:
    if api is Api.RESPONSES:
        return ("max_output_tokens",)
    return ("max_completion_tokens", "max_tokens")


def _object(raw: bytes) -> dict[str, Any]:
    try:
        plain: object = json.loads(raw, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InputError(need="a request in JSON", got=str(error)[:200], hint="") from error
    if not isinstance(plain, dict):
        raise _wrong("an object of JSON", plain)
    return cast("dict[str, Any]", plain)


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def _options(plain: dict[str, Any]) -> dict[str, Any]:
    options = plain.get("stream_options")
    return cast("dict[str, Any]", options) if isinstance(options, dict) else {}


def _whole(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _wrong(f"a whole number above zero as {name}", value)
    return value


def _wrong(need: str, got: object) -> InputError:
    return InputError(need=need, got=repr(got)[:80], hint="see OpenAI's API reference")


def _input_bound(plain: dict[str, Any], raw: bytes, context: int) -> int:
    """The most that can be read."""
    tools: object = plain.get("tools")
    kept = any(plain.get(name) for name in _KEPT)
    if isinstance(tools, list):
        for tool in cast("list[Any]", tools):
            kind: object = cast("dict[str, Any]", tool).get("type") if isinstance(tool, dict) else 0
            kept = kept or kind not in _SENT_TOOLS
    bound = len(raw) + TEMPLATE_TOKENS
    if any(mark in raw for mark in _MEDIA):
        for part in _parts(plain.get("messages") or plain.get("input")):
            kind = part.get("type")
            if kind in ("image_url", "input_image"):
                bound += IMAGE_TOKENS - _inline(part)
            kept = kept or kind in ("file", "input_file")
    return max(bound, context) if kept else bound


def _parts(value: object) -> Iterator[dict[str, Any]]:
    """Every object within messages."""
    if isinstance(value, list):
        for item in cast("list[Any]", value):
            yield from _parts(item)
    elif isinstance(value, dict):
        plain = cast("dict[str, Any]", value)
        yield plain
        yield from _parts(plain.get("content"))
        yield from _parts(plain.get("output"))


def _inline(part: dict[str, Any]) -> int:
    """Bytes of a picture that is sent along: they are no text."""
    url: object = part.get("image_url")
    if isinstance(url, dict):
        url = cast("dict[str, Any]", url).get("url")
    return len(url) if isinstance(url, str) and url.startswith("data:") else 0
