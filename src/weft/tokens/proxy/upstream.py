"""The provider: where requests go, with its key in place of the client's, and with patience."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from weft.tokens.proxy.connection import Broken, Connection
from weft.tokens.proxy.pool import NeverSent, Pool
from weft.tokens.proxy.problems import Problem, broken_upstream
from weft.tokens.proxy.settings import Settings

__all__ = ["Connection", "NeverSent", "Upstream", "passed_on"]

_FORWARDED = (
    *("accept-language", "idempotency-key", "openai-beta", "traceparent", "tracestate"),
    *("user-agent", "x-request-id"),
)
"""Headers of a client's that the provider sees; keys, cookies and addresses are not among them."""
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
"""What a header may say; nothing that could begin another line. Source: RFC 9110, section 5.5."""
_HOP = frozenset(
    {
        *(b"connection", b"content-length", b"keep-alive", b"proxy-authenticate", b"server"),
        *(b"date", b"set-cookie", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    }
)
"""Headers of a provider's that are about its own connection. Source: RFC 9110, section 7.6.1."""


class Upstream:
    """See the module.

    Args:
        settings: of the proxy.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool = Pool(settings.base, settings.connect_s)
        parts = urlsplit(settings.base)
        self._path = parts.path
        lines = [f"host: {parts.netloc}", "content-type: application/json"]
        lines.append("accept-encoding: identity")
        if settings.upstream_key:
            lines.append(f"authorization: Bearer {settings.upstream_key}")
        self._lines = lines

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()

    @asynccontextmanager
    async def sent(
        self, method: str, path: str, body: bytes, client: Mapping[str, str]
    ) -> AsyncGenerator[Connection]:
        """Send a request, and wait for the head of its answer.

        Args:
            method: of the request.
            path: below the provider's address, as it is to stand in the request.
            body: of the request.
            client: headers of the client's request, in lower case.

        Raises:
            NeverSent: there was no connection.
            Problem: there was no answer, or none in time.
        """
        head = self._head(method, path, len(body), client)
        connection = await self._pool.connection()
        try:
            try:
                await connection.ask((head, body), self._settings.first_s)
            except TimeoutError as error:
                raise _late(f"no answer within {self._settings.first_s:g} s") from error
            except Broken as error:
                raise broken_upstream(f"the provider gave no answer: {error}") from error
            yield connection
        finally:
            self._pool.give_back(connection)

    async def piece(self, answer: Connection) -> bytes:
        """What came since; empty at the end.

        Raises:
            Problem: it broke off, or nothing came in time.
        """
        try:
            return await answer.piece(self._settings.between_s)
        except TimeoutError as error:
            raise _late(f"nothing more within {self._settings.between_s:g} s") from error
        except Broken as error:
            raise broken_upstream(f"the answer broke off: {error}") from error

    async def whole(self, answer: Connection) -> bytes:
        """All of an answer.

        Raises:
            Problem: it broke off, is too large, or did not come in time.
        """
        found: list[bytes] = []
        size = 0
        while data := await self.piece(answer):
            size += len(data)
            if size > self._settings.largest_bytes:
                raise broken_upstream(f"more than {self._settings.largest_bytes} bytes")
            found.append(data)
        return found[0] if len(found) == 1 else b"".join(found)

    def _head(self, method: str, path: str, length: int, client: Mapping[str, str]) -> bytes:
        own = {name: client[name].strip(" \t") for name in _FORWARDED if name in client}
        lines = [f"{name}: {value}" for name, value in own.items() if _VALUE.fullmatch(value)]
        if length:
            lines.append(f"content-length: {length}")
        first = f"{method} {self._path}{path} HTTP/1.1"
        return "\r\n".join([first, *self._lines, *lines, "", ""]).encode("latin-1")


def passed_on(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Headers of an answer that a client sees."""
    return [own for own in headers if own[0] not in _HOP]


def _late(what: str) -> Problem:
    return broken_upstream(f"the provider hangs: {what}", status=504, code="upstream_timeout")
