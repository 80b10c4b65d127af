"""Connections to one provider: made when they are needed, and kept for a while."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from aiohappyeyeballs import start_connection  # pyright: ignore[reportUnknownVariableType]

from weft.tokens.proxy.connection import Connection

__all__ = ["NeverSent", "Pool"]

KEEP_S = 4.0
"""How long a connection that is not in use is kept [s]. Chosen: below the five seconds after which
common servers close theirs, so that no request meets a connection that is just being closed."""
ADDRESSES_S = 60.0
"""How long addresses of a name are taken to hold [s]. Chosen: what names of large providers say."""
STAGGER_S = 0.25
"""How long one address is tried alone before the next is, too. Source: RFC 8305, section 8."""
_PORTS = {"http": 80, "https": 443}
_Address: TypeAlias = tuple[int, int, int, str, tuple[Any, ...]]
"""What getaddrinfo says: family, kind, protocol, name, place."""


class NeverSent(Exception):
    """No connection came about, so nothing was asked for and nothing is billed."""


class Pool:
    """See the module; there is no limit, since how many may be in flight is for budgets to say.

    Args:
        address: of the provider.
        patience_s: how long to wait for a connection, names and TLS included [s].
    """

    def __init__(self, address: str, patience_s: float) -> None:
        parts = urlsplit(address)
        self._host, self._port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        self._patience_s = patience_s
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        self._free: list[tuple[float, Connection]] = []
        self._sweeping: asyncio.TimerHandle | None = None
        self._known: tuple[float, Sequence[_Address]] = (0.0, ())

    async def connection(self) -> Connection:
        """One to which a request can be written at once: the one that was used last, or a new one.

        Raises:
            NeverSent: there is none.
        """
        oldest = asyncio.get_running_loop().time() - KEEP_S
        while self._free:
            since, connection = self._free.pop()
            if since > oldest and connection.is_free:
                return connection
            connection.close()
        try:
            async with asyncio.timeout(self._patience_s):
                connection = await self._connected()
        except TimeoutError as error:
            raise NeverSent(f"no connection within {self._patience_s:g} s") from error
        except (OSError, RuntimeError, UnicodeError) as error:  # uvloop's, and names that are none
            self._known = (0.0, ())
            raise NeverSent(f"no connection: {error}") from error
        if connection.is_lost:
            raise NeverSent("no connection: it was closed at once")
        return connection

    def give_back(self, connection: Connection) -> None:
        """Keep one for the next request, if another can follow on it; otherwise close it."""
        if not connection.is_free:
            connection.close()
            return
        loop = asyncio.get_running_loop()
        self._free.append((loop.time(), connection))
        if self._sweeping is None:
            self._sweeping = loop.call_later(KEEP_S, self._sweep)

    def _sweep(self) -> None:
        """Close those that were kept for too long."""
        loop = asyncio.get_running_loop()
        oldest = loop.time() - KEEP_S
        kept = [(since, own) for since, own in self._free if since > oldest]
        for _, connection in self._free[: len(self._free) - len(kept)]:
            connection.close()
        self._free = kept
        self._sweeping = loop.call_later(KEEP_S, self._sweep) if kept else None

    async def _connected(self) -> Connection:
        loop = asyncio.get_running_loop()
        found = await self._addresses()
        # Its types leave open what addresses are made of.
        own = await start_connection(found, happy_eyeballs_delay=STAGGER_S)  # pyright: ignore[reportUnknownVariableType]
        try:
            name = self._host if self._tls is not None else None
            _, connection = await loop.create_connection(
                Connection, sock=own, ssl=self._tls, server_hostname=name
            )
        except BaseException:
            own.close()
            raise
        return connection

    async def _addresses(self) -> Sequence[_Address]:
        loop = asyncio.get_running_loop()
        until, found = self._known
        if loop.time() >= until:
            found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            self._known = loop.time() + ADDRESSES_S, found
        return found

    async def close(self) -> None:
        """Close all that are kept."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for _, connection in self._free:
            connection.close()
        self._free.clear()
        await asyncio.sleep(0.0)  # so that the event loop hears of it
