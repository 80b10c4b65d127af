"""Load on HTTP servers, at a rate that does not depend on them: an open loop.

Requests are due at times that are drawn beforehand (Poisson). One that is due is sent, on a
connection that is free or a new one, whatever became of those before it; and its latency counts
from when it was due, so that neither a slow server nor a slow client can hide what it did to those
that waited (coordinated omission). Targets take turns, in slices of a few seconds.

Takes a plan in JSON as its argument, and prints what came of it in JSON.

Source: Tene, "How not to measure latency", 2013.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass, field
from typing import Any, cast

import uvloop

from benchmarks.tokens.proxy_upstream import PROMPT, body_at

__all__ = ["PATIENCE_S", "request"]

PATIENCE_S = 2.0
"""After a slice, what is not answered by then counts as lost."""
READY = 64
"""Connections that are opened before a slice: opening them is not what is measured."""


def request(key: str) -> bytes:
    """A chat, as bytes."""
    body = {"model": "gpt-4o-mini", "max_tokens": 200}
    raw = json.dumps({**body, "messages": [{"role": "user", "content": PROMPT}]}).encode()
    lines = (
        "POST /v1/chat/completions HTTP/1.1",
        "host: 127.0.0.1",
        f"authorization: Bearer {key}",
        "content-type: application/json",
        f"content-length: {len(raw)}",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + raw


@dataclass(slots=True)
class _Slice:
    latencies: list[float] = field(default_factory=list[float])
    lags: list[float] = field(default_factory=list[float])
    errors: int = 0
    flying: int = 0


class _Connection(asyncio.Protocol):
    def __init__(self, own: _Slice, free: list[_Connection]) -> None:
        self._slice, self._free = own, free
        self._data, self._due = b"", 0.0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def send(self, raw: bytes, due: float) -> None:
        """Send a request that was due then."""
        assert self.transport is not None
        self._due = due
        self._slice.flying += 1
        self.transport.write(raw)

    def data_received(self, data: bytes) -> None:
        """Note when an answer is whole."""
        self._data += data
        found = body_at(self._data) if b"chunked" not in self._data else _chunked(self._data)
        if found is None:
            return
        own = self._slice
        own.latencies.append(time.perf_counter() - self._due)
        own.errors += not self._data.startswith(b"HTTP/1.1 200")
        own.flying -= 1
        self._data = b""
        self._free.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is of no use any more."""
        if self in self._free:
            self._free.remove(self)


def _chunked(data: bytes) -> tuple[int, int] | None:
    return (0, len(data)) if data.endswith(b"0\r\n\r\n") else None


async def _run_slice(port: int, raw: bytes, rate: float, seconds: float, seed: int) -> _Slice:
    own, free = _Slice(), list[_Connection]()
    loop = asyncio.get_running_loop()
    every: list[_Connection] = []

    async def connect() -> _Connection:
        _, made = await loop.create_connection(lambda: _Connection(own, free), "127.0.0.1", port)
        every.append(made)
        return made

    free += [await connect() for _ in range(READY)]
    drawn = random.Random(seed)
    due = time.perf_counter() + 0.05
    end = due + seconds
    while (due := due + drawn.expovariate(rate)) < end:
        wait = due - time.perf_counter()
        if wait > 0.0:
            await asyncio.sleep(wait)
        connection = free.pop() if free else await connect()
        own.lags.append(time.perf_counter() - due)
        connection.send(raw, due)
    until = time.perf_counter() + PATIENCE_S
    while own.flying and time.perf_counter() < until:
        await asyncio.sleep(0.01)
    for connection in every:
        if connection.transport is not None:
            connection.transport.abort()
    await asyncio.sleep(0.2)
    return own


async def _main(plan: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    began, used = time.perf_counter(), time.process_time()
    for number, step in enumerate(plan["slices"]):
        name, rate, seconds = step["target"], step["rate"], step["seconds"]
        target = plan["targets"][name]
        own = await _run_slice(target["port"], request(target["key"]), rate, seconds, number)
        kept = found.setdefault(
            f"{name} {rate}", {"latencies": [], "lags": [], "errors": 0, "lost": 0, "sent": 0}
        )
        kept["latencies"] += own.latencies
        kept["lags"] += own.lags
        kept["errors"] += own.errors
        kept["lost"] += own.flying
        kept["sent"] += len(own.lags)
    cpu = (time.process_time() - used) / (time.perf_counter() - began)
    return {"found": found, "cpu": cpu}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(_main(json.loads(sys.argv[1])))))
