"""The proxy as an ASGI application.

    POST /v1/chat/completions, /v1/responses    metered
    GET  /v1/models, /v1/models/...             passed through
    GET  /healthz, /metrics, /, /state          for those who look after it

Everything else is refused: what is not metered would be a way around the budget.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from weft.core.errors import WeftError
from weft.tokens.budgets.budgets_file import BudgetsFile
from weft.tokens.budgets.node import lineage
from weft.tokens.proxy.exchange import PATHS, Exchange, House, Receive, Send
from weft.tokens.proxy.keys import Keyring
from weft.tokens.proxy.page import Burn, page, state
from weft.tokens.proxy.problems import Problem, bad_request, broken_upstream, not_known
from weft.tokens.proxy.upstream import NeverSent, passed_on

__all__ = ["Proxy", "units_of"]

_MODELS = "/v1/models"
_MODEL = re.compile(rf"{_MODELS}(/[\w:@+~-][\w.:@+~-]*)*", re.ASCII)
"""A list of models, or one. A path that leads up, or holds a query, would reach what is not metered
with the provider's key."""
_JSON = (b"content-type", b"application/json")
_LOCAL = ("127.0.0.1", "::1", "localhost")
_POLICY = (
    b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    b"connect-src 'self'; frame-ancestors 'none'"
)
_SECURE = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", _POLICY),
)
_log = logging.getLogger("weft.proxy")

Scope = MutableMapping[str, Any]


class Proxy:
    """See the module.

    Args:
        house: what calls share; opened and closed with the application.
        keyring: who may spend, and from where.
        style: CSS of the live page.
        is_public: whether metrics and the page are for everybody, or for this machine alone.
    """

    def __init__(
        self, house: House, keyring: Keyring, *, style: str = "", is_public: bool = False
    ) -> None:
        self.house, self._keyring = house, keyring
        self._style, self._is_public = style, is_public
        self._burn = Burn()
        self._ticking: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or begin and end."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._answered(scope, receive, send)

    async def open(self) -> None:
        """Begin, within an event loop.

        Raises:
            FileError: the ledger cannot be opened.
        """
        await self.house.desk.open()
        if self.house.spans is not None:
            await self.house.spans.open()
        self._ticking = asyncio.create_task(self._tick())

    async def close(self) -> None:
        """End: what is under way was waited for; all is written."""
        if self._ticking is not None:
            self._ticking.cancel()
        await self.house.upstream.close()
        await self.house.desk.close()
        if self.house.spans is not None:
            await self.house.spans.close()

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            kind = (await receive())["type"]
            try:
                await (self.open() if kind == "lifespan.startup" else self.close())
            except WeftError as error:
                await send({"type": f"{kind}.failed", "message": str(error)})
                return
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    async def _tick(self) -> None:
        """Take down where budgets stand, every second, for the page."""
        while True:
            try:
                standings = await self.house.desk.ask(lambda budget: budget.standings())
                self._burn.add(standings)
            except WeftError as error:
                _log.warning("cannot see where budgets stand: %s", error)
            await asyncio.sleep(1.0)

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._routed(scope, receive, sending)
        except Problem as problem:
            self.house.metrics.add("weft_refused_total", code=problem.code)
            await _reply(send, problem.status, problem.body(), (_JSON, *problem.headers))
        except Exception:
            _log.exception("this should not happen")
            if started:
                raise
            problem = Problem(
                status=500,
                kind="server_error",
                code="internal",
                message="the proxy failed; its log says how",
            )
            await _reply(send, 500, problem.body(), (_JSON,))

    async def _routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        headers = {name.decode("latin-1"): v.decode("latin-1") for name, v in scope["headers"]}
        if method == "POST" and path in PATHS:
            node = self._node(headers)
            raw = await _body(receive, self.house.settings.largest_bytes)
            await Exchange(self.house, path, node, headers, receive, send).run(raw)
        elif method == "GET" and _MODEL.fullmatch(path):
            self._node(headers)
            await self._models(path, headers, send)
        elif method == "GET" and path == "/healthz":
            await self._health(send)
        elif method == "GET" and path in ("/", "/metrics", "/state"):
            client = scope.get("client")
            if not self._is_public and (client is None or client[0] not in _LOCAL):
                raise not_known("this page is for the machine that the proxy runs on", status=403)
            await self._shown(path, send)
        else:
            raise not_known(
                f"{method} {path}: there is POST {' and '.join(PATHS)}, and GET {_MODELS}"
            )

    def _node(self, headers: Mapping[str, str]) -> str:
        node = self._keyring.node_of(headers.get("authorization", ""))
        if node is None:
            raise not_known("this key is not known", status=401)
        return node

    async def _models(self, path: str, headers: Mapping[str, str], send: Send) -> None:
        try:
            async with self.house.upstream.sent("GET", path, b"", headers) as came:
                body = await self.house.upstream.whole(came)
                if came.status in (401, 403):
                    raise broken_upstream("the provider does not take the proxy's key")
                await _reply(send, came.status, body, tuple(passed_on(came.headers)))
        except NeverSent as error:
            raise broken_upstream(str(error), code="no_connection") from error

    async def _health(self, send: Send) -> None:
        trouble = self.house.desk.trouble
        body = json.dumps({"ok": not trouble, "trouble": trouble}).encode()
        await _reply(send, 503 if trouble else 200, body, (_JSON,))

    async def _shown(self, path: str, send: Send) -> None:
        if path == "/":
            kind, body = b"text/html; charset=utf-8", page(self._style).encode()
        else:
            standings = await self.house.desk.ask(lambda budget: budget.standings())
            if path == "/metrics":
                kind = b"text/plain; version=0.0.4; charset=utf-8"
                body = self.house.metrics.text(standings).encode()
            else:
                kind = b"application/json"
                body = json.dumps(state(self.house, standings, self._burn)).encode()
        await _reply(send, 200, body, ((b"content-type", kind), *_SECURE))


async def _body(receive: Receive, most: int) -> bytes:
    """The body of a request.

    Raises:
        Problem: it is too large, or the client left.
    """
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise broken_upstream("the client left", status=499, code="client_gone")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            error = WeftError(need=f"at most {most} bytes", got="more", hint="send less at once")
            raise bad_request(error, "too_large")
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _reply(
    send: Send, status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]]
) -> None:
    length = (b"content-length", str(len(body)).encode())
    start = {"type": "http.response.start", "status": status, "headers": [*headers, length]}
    await send(start)
    await send({"type": "http.response.body", "body": body})


def units_of(file: BudgetsFile, node: str) -> tuple[str, ...]:
    """Units that are capped where a node pays, in an order that is always the same."""
    units: set[str] = set()
    for path in lineage(node):
        above = path.rpartition("/")[0]
        caps = file.nodes.get(path) or file.nodes.get(f"{above}/*" if above else "*", ())
        units |= {cap.most.currency for cap in caps}
    return tuple(sorted(units))
