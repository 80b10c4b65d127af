"""What was seen of an answer: how much text, what usage it reports, whether it came to an end."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, cast

from weft.tokens.proxy.events import DONE, data_of, event_of
from weft.tokens.proxy.request import Api

__all__ = ["Answer", "Part"]

LONGEST_TOKEN_BYTES = 128
"""Text of so many bytes is one token at least. Source: the longest tokens of OpenAI's cl100k_base
and o200k_base are 128 spaces."""
_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")
_LAST = frozenset({"response.completed", "response.incomplete", "response.failed"})


class Part(Enum):
    """What an event of a stream is."""

    TEXT = "text"
    USAGE = "usage"
    """Of a chat, and nothing else: it comes only if it was asked for."""
    LAST = "last"
    """What says that nothing follows."""


class Answer:
    """See the module.

    Args:
        api: whose form the answer has.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self.usage: object = None
        """As it was reported, whatever that is."""
        self.id = ""
        self.tier = ""
        self.model = ""
        self.is_whole = False
        self.is_cut = False
        """Whether it ended for want of tokens."""
        self.failure = ""
        self._bytes = 0

    @property
    def seen(self) -> int:
        """Tokens that were generated at least."""
        return -(-self._bytes // LONGEST_TOKEN_BYTES)

    def event(self, raw: bytes) -> Part:
        """Take in an event of a stream, and say what it is."""
        data = data_of(raw)
        if data == DONE:
            self.is_whole = True
            return Part.LAST
        plain = event_of(data) if data else None
        if plain is None:
            return Part.TEXT
        if self._api is Api.RESPONSES:
            return self._responses_event(plain)
        self._named(plain)
        usage: object = plain.get("usage")
        if usage is not None:
            self.usage = usage
        if plain.get("error"):
            self.failure = _failure(plain["error"])
        choices = _list(plain.get("choices"))
        for choice in choices:
            self._text(choice.get("delta"))
            self._ended(choice.get("finish_reason"))
        return Part.USAGE if usage is not None and not choices else Part.TEXT

    def _responses_event(self, plain: Mapping[str, Any]) -> Part:
        kind = str(plain.get("type"))
        delta: object = plain.get("delta")
        if isinstance(delta, str):
            self._bytes += len(delta.encode(errors="replace"))
        response: object = plain.get("response")
        if isinstance(response, dict):
            own = cast("dict[str, Any]", response)
            self._named(own)
            self.usage = own.get("usage") if own.get("usage") is not None else self.usage
        if kind == "error":
            self.failure = _failure(plain.get("error") or plain)
        if kind not in _LAST:
            return Part.TEXT
        if isinstance(response, dict):
            self._response_ended(cast("dict[str, Any]", response))
        self.is_whole = True
        return Part.LAST

    def whole(self, plain: Mapping[str, Any]) -> None:
        """Take in an answer that came in one piece."""
        self._named(plain)
        self.usage = plain.get("usage")
        self.is_whole = True
        if plain.get("error"):
            self.failure = _failure(plain["error"])
        for choice in _list(plain.get("choices")):
            self._text(choice.get("message"))
            self._ended(choice.get("finish_reason"))
        if self._api is Api.RESPONSES:
            for item in _list(plain.get("output")):
                self._text(item)
                for part in _list(item.get("content")):
                    self._text({"content": part.get("text")})
                self._text({"content": item.get("arguments")})
            self._response_ended(plain)

    def _named(self, plain: Mapping[str, Any]) -> None:
        for name, key in (("id", "id"), ("model", "model"), ("tier", "service_tier")):
            value: object = plain.get(key)
            if isinstance(value, str) and value:
                setattr(self, name, value[:200])

    def _text(self, message: object) -> None:
        if not isinstance(message, dict):
            return
        plain = cast("dict[str, Any]", message)
        for name in _TEXTS:
            value: object = plain.get(name)
            if isinstance(value, str):
                self._bytes += len(value.encode(errors="replace"))
        for call in _list(plain.get("tool_calls")):
            function: object = call.get("function")
            if isinstance(function, dict):
                words: object = cast("dict[str, Any]", function).get("arguments")
                self._bytes += len(words.encode(errors="replace")) if isinstance(words, str) else 0

    def _ended(self, reason: object) -> None:
        if reason is not None:
            self.is_whole = True
            self.is_cut = self.is_cut or reason == "length"

    def _response_ended(self, plain: Mapping[str, Any]) -> None:
        self.is_cut = plain.get("status") == "incomplete"
        if plain.get("status") == "failed":
            self.failure = _failure(plain.get("error"))


def _failure(error: object) -> str:
    plain = cast("dict[str, Any]", error) if isinstance(error, dict) else {}
    return str(plain.get("code") or plain.get("type") or "error")[:80]


def _list(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        return []
    own = cast("list[Any]", value)
    return [cast("dict[str, Any]", item) for item in own if isinstance(item, dict)]
