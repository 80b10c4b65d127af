"""How a proxy is set up."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from weft.core.errors import InputError

__all__ = ["Settings"]

_WAITS = ("connect_s", "first_s", "between_s", "total_s")
_VISIBLE = re.compile(r"[!-~]+")
"""What can stand within a line of HTTP as it is."""
_LIMITS = ("max_tokens", "context_tokens", "largest_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a proxy is set up.

    Attributes:
        upstream: address of the provider; a path that ends in /v1 may be given or left out.
        upstream_key: what the provider is paid by. It goes there and nowhere else.
        provider: whose prices hold; empty to go by the names of models.
        limit_field: of a chat request, by which the provider is held to a length where the client
            names none: OpenAI's reasoning models refuse max_tokens, older servers know nothing
            else.
        max_tokens: the longest answer where the client names none [tokens]. Chosen: what OpenAI's
            gpt-4o could generate at most, as its list of models says.
        context_tokens: the most that can be read where the request does not hold it all: files,
            earlier answers and results of tools that the provider keeps [tokens]. Chosen: the
            context of gpt-5, as OpenAI's list of models says.
        alpha: share of answers that may be longer than what is reserved at least.
        connect_s: how long to wait for a connection [s].
        first_s: for the first byte of an answer; all of it where it is not streamed [s]. Chosen:
            what OpenAI's client waits.
        between_s: for the next byte of a stream [s].
        total_s: for everything [s].
        largest_bytes: of a request, and of an answer that is not streamed [bytes].
        durable: whether an answer's end waits for the disc, so that a power cut loses nothing. A
            killed process loses nothing either way.

    Raises:
        InputError: the address or the key is none, or a limit is not above zero.
    """

    upstream: str
    upstream_key: str = field(default="", repr=False)
    provider: str = ""
    limit_field: str = "max_completion_tokens"
    max_tokens: int = 16_384
    context_tokens: int = 400_000
    alpha: float = 0.01
    connect_s: float = 5.0
    first_s: float = 600.0
    between_s: float = 60.0
    total_s: float = 3600.0
    largest_bytes: int = 64 * 2**20
    durable: bool = False

    def __post_init__(self) -> None:
        if not _is_address(self.upstream):
            raise InputError(
                need="the address of a provider, without a password in it",
                got=repr(self.upstream),
                hint="--upstream http://127.0.0.1:8000; its key goes into the environment",
            )
        if not _VISIBLE.fullmatch(self.upstream_key or "-"):
            raise InputError(
                need="a provider's key of letters, digits and signs alone",
                got=f"{len(self.upstream_key)} characters, some of them others",
                hint="is there a space or the end of a line in it?",
            )
        for name in (*_WAITS, *_LIMITS):
            if not getattr(self, name) > 0:
                raise InputError(
                    need=f"{name} above zero", got=repr(getattr(self, name)), hint="leave it out"
                )

    @property
    def base(self) -> str:
        """The address without /v1 at its end."""
        return self.upstream.rstrip("/").removesuffix("/v1")


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        is_place = bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        return False
    is_plain = _VISIBLE.fullmatch(text) is not None and "@" not in parts.netloc
    has_more = "?" in text or "#" in text
    return is_place and is_plain and not has_more and parts.scheme in ("http", "https")
