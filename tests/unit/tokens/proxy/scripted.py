"""A provider that does as it is told, and a proxy in front of it, both on ports of their own."""

import asyncio
import contextlib
import json
import socket

import aiohttp
import uvicorn

from weft.tokens.budgets.budgets_file import read_budgets
from weft.tokens.ledger import Ledger
from weft.tokens.prices import FileBook
from weft.tokens.proxy.serve import make_proxy
from weft.tokens.proxy.settings import Settings

KEY = "sk-test"
UPSTREAM_KEY = "sk-provider-secret"
BUDGETS = """
cap: 10 usd
nodes:
  team:
    cap: 5 usd daily
    nodes:
      a: {cap: 1 usd}
      poor: {cap: 0.0000001 usd}
  counted: {cap: [100000 tokens, 3 calls]}
keys:
  sk-test: team/a
  sk-poor: team/poor
  sk-counted: counted
"""
# A token that is sent costs 1, one that comes back 4 millionths.
PRICES = 'prices: [{model: "known*", usd: {fresh: 1, cache_read: 0.5, text: 4}}]\n'
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 7,
    "total_tokens": 16,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
SPENT_NANO = 5 * 1000 + 4 * 500 + 7 * 4000
CHAT = {"model": "known", "messages": [{"role": "user", "content": "hello"}]}
WORDS = ("Once", " upon", " a", " time")
ANSWER = "".join(WORDS)


class Quiet(uvicorn.Server):
    """One that leaves signals alone, and looks more often whether it is to end."""

    async def main_loop(self):
        await self.on_tick(0)
        while not self.should_exit:
            await asyncio.sleep(0.005)

    @contextlib.contextmanager
    def capture_signals(self):
        yield


@contextlib.asynccontextmanager
async def running(app):
    """Address of a server for an application."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        config = uvicorn.Config(
            app, log_level="error", lifespan="auto", timeout_graceful_shutdown=2, ws="none"
        )
        server = Quiet(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            assert not task.done(), task
            await asyncio.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


def completion(usage=USAGE, text=ANSWER, reason="stop", name="chatcmpl-1", **more):
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": reason,
    }
    plain = {"id": name, "object": "chat.completion", "created": 1, "model": "known"}
    return {**plain, "choices": [choice], **({} if usage is None else {"usage": usage}), **more}


def event(plain):
    return b"data: " + json.dumps(plain).encode() + b"\n\n"


def chunk(text=None, reason=None, usage=None, choices=True):
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    plain = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "known"}
    return event({**plain, "choices": [choice] if choices else [], "usage": usage})


def stream(usage=USAGE, words=WORDS):
    last = [] if usage is None else [chunk(usage=usage, choices=False)]
    return [*map(chunk, words), chunk(reason="stop"), *last, b"data: [DONE]\n\n"]


class Provider:
    """Answers with `reply`: JSON, a list of pieces for a stream, or a function of ASGI."""

    def __init__(self, reply=None):
        self.reply = completion() if reply is None else reply
        self.status = 200
        self.seen = []
        self.left = asyncio.Event()
        self.goes_on = asyncio.Event()

    async def __call__(self, scope, receive, send):
        assert scope["type"] == "http", scope["type"]
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        plain = json.loads(body) if body else None
        self.seen.append((scope["path"], headers, plain))
        reply = self.reply
        if callable(reply):
            reply = await reply(self, plain, receive, send)
            if reply is None:
                return
        kind = b"text/event-stream" if isinstance(reply, list) else b"application/json"
        own = [(b"content-type", kind), (b"x-request-id", b"r-1"), (b"set-cookie", b"a=b")]
        await send({"type": "http.response.start", "status": self.status, "headers": own})
        pieces = reply if isinstance(reply, list) else [json.dumps(reply).encode()]
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})


class Place:
    """A proxy in front of a provider, with all that lies on the disc."""

    def __init__(self, folder, url, provider, proxy, session):
        self.folder, self.url, self.provider, self.proxy = folder, url, provider, proxy
        self.session = session

    async def post(self, body=CHAT, *, key=KEY, path="/v1/chat/completions", **headers):
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named |= {"authorization": f"Bearer {key}"}
        async with self.session.post(self.url + path, data=raw, headers=named) as reply:
            return reply.status, reply.headers, await reply.read()

    async def get(self, path, key=KEY):
        headers = {"authorization": f"Bearer {key}"}
        async with self.session.get(self.url + path, headers=headers) as reply:
            return reply.status, reply.headers, await reply.read()

    async def standing(self, node="team/a"):
        """Once all that ended is settled."""
        for _ in range(200):
            found = await self.proxy.house.desk.ask(lambda budget: budget.standing(node))
            own = found[-1]
            if not own.flying:
                break
            await asyncio.sleep(0.01)
        return own


def calls(folder):
    with Ledger(folder / "ledger.db") as ledger:
        return list(ledger.calls()), ledger.quarantine()


@contextlib.asynccontextmanager
async def place(folder, provider, *, budgets=BUDGETS, where="budgets.db", **options):
    """A proxy in front of a provider; `options` of Settings, or of make_proxy."""
    (folder / "budgets.yaml").write_text(budgets)
    (folder / "prices.yaml").write_text(PRICES)
    made = {name: options.pop(name) for name in ("spans", "style", "ledger") if name in options}
    made.setdefault("ledger", folder / "ledger.db")
    async with running(provider) as upstream:
        proxy = make_proxy(
            Settings(
                **{"upstream": upstream, "upstream_key": UPSTREAM_KEY, "max_tokens": 1000} | options
            ),
            read_budgets(folder / "budgets.yaml"),
            where=where if where == ":memory:" or "://" in where else folder / where,
            book=FileBook(folder / "prices.yaml"),
            **made,
        )
        async with running(proxy) as url, aiohttp.ClientSession() as session:
            yield Place(folder, url, provider, proxy, session)
    # Nothing is left in flight, nor written down as such.
    assert not (folder / "ledger.db.flying").exists()
