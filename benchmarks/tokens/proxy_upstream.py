"""A provider that answers at once, always the same.

It parses no more of HTTP than it must, so that it takes little of the machine that is measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

import uvloop

__all__ = ["PROMPT", "REPLY", "USAGE", "body_at"]

PROMPT = "Say in a few words what a budget is for. " * 4
USAGE = {"prompt_tokens": 40, "completion_tokens": 24, "total_tokens": 64}
REPLY = {
    "id": "chatcmpl-0",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-mini",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "To decide beforehand what is enough. " * 4,
            },
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
}


def body_at(data: bytes) -> tuple[int, int] | None:
    """Where the body of a message begins and ends; None if not all of it is there yet."""
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return None
    name = data[:head].lower().find(b"content-length:")
    length = int(data[name + 15 : head].split(b"\r\n", 1)[0]) if name >= 0 else 0
    end = head + 4 + length
    return (head + 4, end) if len(data) >= end else None


class _Answers(asyncio.Protocol):
    body = json.dumps(REPLY).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
    whole = head + str(len(body)).encode() + b"\r\n\r\n" + body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is no subclass
        self._data = b""

    def data_received(self, data: bytes) -> None:
        """Answer each request that is whole."""
        self._data += data
        while (found := body_at(self._data)) is not None:
            self._data = self._data[found[1] :]
            self._transport.write(self.whole)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Answers, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
