"""The provider: where requests go, with its key in place of the client's, and with patience."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from weft.tokens.proxy.problems import Problem, broken_upstream
from weft.tokens.proxy.settings import Settings

__all__ = ["NeverSent", "Upstream", "passed_on"]

_FORWARDED = (
    *("accept-language", "idempotency-key", "openai-beta", "traceparent", "tracestate"),
    *("user-agent", "x-request-id"),
)
"""Headers of a client's that the provider sees; keys, cookies and addresses are not among them."""
_HOP = frozenset(
    {
        *(b"connection", b"content-length", b"keep-alive", b"proxy-authenticate", b"server"),
        *(b"date", b"set-cookie", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    }
)
"""Headers of a provider's that are about its own connection. Source: RFC 9110, section 7.6.1."""
KEEP_S = 4.0
"""How long a connection that is not in use is kept [s]. Chosen: below the five seconds after which
common servers close theirs, so that no request meets a connection that is just being closed."""


class NeverSent(Exception):
    """No connection came about, so nothing was asked for and nothing is billed."""


class Upstream:
    """See the module.

    Args:
        settings: of the proxy.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._addresses: dict[str, URL] = {}

    async def open(self) -> None:
        """Make ready, within an event loop."""
        # No limit: how many may be in flight is for budgets to say.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_S, ttl_dns_cache=60)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._settings.connect_s),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept"),
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def sent(
        self, method: str, path: str, body: bytes | None, client: Mapping[str, str]
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """Send a request, and wait for the head of its answer.

        Raises:
            NeverSent: there was no connection.
            Problem: there was no answer, or none in time.
        """
        assert self._session is not None
        address = self._addresses.get(path)
        if address is None:
            address = URL(self._settings.base + path, encoded=True)
            if len(self._addresses) < 100:
                self._addresses[path] = address
        headers = self._headers(client)
        try:
            async with asyncio.timeout(self._settings.first_s):
                reply = await self._session.request(
                    method, address, data=body, headers=headers, allow_redirects=False
                )
        except TimeoutError as error:
            if isinstance(error, aiohttp.ConnectionTimeoutError):
                raise NeverSent(f"no connection within {self._settings.connect_s:g} s") from error
            raise _late(f"no answer within {self._settings.first_s:g} s") from error
        except aiohttp.ClientConnectorError as error:
            raise NeverSent(f"no connection: {error.strerror or error}") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise broken_upstream(f"the provider gave no answer: {type(error).__name__}") from error
        try:
            yield reply
        finally:
            if reply.content.at_eof():
                reply.release()
            else:
                reply.close()  # so that the provider stops

    async def pieces(self, reply: aiohttp.ClientResponse) -> AsyncGenerator[bytes]:
        """What comes, as it comes.

        Raises:
            Problem: it broke off, or nothing came in time.
        """
        content = reply.content
        while True:
            try:
                async with asyncio.timeout(self._settings.between_s):
                    data = await content.readany()
            except TimeoutError as error:
                raise _late(f"nothing more within {self._settings.between_s:g} s") from error
            except aiohttp.ClientError as error:
                raise broken_upstream(f"the answer broke off: {type(error).__name__}") from error
            if not data:
                return
            yield data

    async def whole(self, reply: aiohttp.ClientResponse) -> bytes:
        """All of an answer.

        Raises:
            Problem: it broke off, is too large, or did not come in time.
        """
        found: list[bytes] = []
        size = 0
        async for data in self.pieces(reply):
            size += len(data)
            if size > self._settings.largest_bytes:
                raise broken_upstream(f"more than {self._settings.largest_bytes} bytes")
            found.append(data)
        return found[0] if len(found) == 1 else b"".join(found)

    def _headers(self, client: Mapping[str, str]) -> dict[str, str]:
        headers = {name: client[name] for name in _FORWARDED if name in client}
        headers["content-type"] = "application/json"
        headers["accept-encoding"] = "identity"
        if self._settings.upstream_key:
            headers["authorization"] = f"Bearer {self._settings.upstream_key}"
        return headers


def passed_on(raw: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Headers of an answer that a client sees."""
    return [(low, value) for name, value in raw if (low := name.lower()) not in _HOP]


def _late(what: str) -> Problem:
    return broken_upstream(f"the provider hangs: {what}", status=504, code="upstream_timeout")
