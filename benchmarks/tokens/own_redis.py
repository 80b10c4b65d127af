"""A Redis server of one's own, on a free port, for as long as it is needed."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["redis_server", "without_redis"]

WAIT_S = 20.0


def without_redis() -> str:
    """Why there can be no server, in words; empty if there can."""
    if shutil.which("redis-server") is None:
        return "needs redis-server: apt-get install redis-server"
    if importlib.util.find_spec("redis") is None:
        return "needs the client of Redis: pip install 'weft[redis]'"
    return ""


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Address of a server that keeps its state in memory.

    Raises:
        RuntimeError: it does not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with subprocess.Popen([*command, "--dir", str(folder)], stdout=subprocess.DEVNULL) as server:
        try:
            until = time.monotonic() + WAIT_S
            while not _answers(port):
                if server.poll() is not None or time.monotonic() > until:
                    raise RuntimeError("redis-server did not start")
                time.sleep(0.02)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False
