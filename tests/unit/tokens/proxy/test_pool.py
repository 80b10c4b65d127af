"""Connections to providers on real sockets: kept, closed, given up, encrypted, and held back."""

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import time

import pytest
import uvloop

from tests.unit.tokens.proxy.scripted import CHAT, KEY, Provider, calls, event, place
from weft.tokens import Status
from weft.tokens.proxy import pool
from weft.tokens.proxy.problems import Problem
from weft.tokens.proxy.settings import Settings
from weft.tokens.proxy.upstream import NeverSent, Upstream

LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CLOSES = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
OLD = b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok"
ENDS = b"HTTP/1.1 200 OK\r\n\r\nok"
INFORMS = b"HTTP/1.1 102 Processing\r\n\r\n" + OK
MORE = OK + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
SHORT = {"connect_s": 0.3, "first_s": 0.3, "between_s": 0.3}


async def asked(reader):
    """The body of a request; None if there is no more."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return await reader.readexactly(int(length or 0))


class Server:
    """Answers each request as `reply` says: bytes, or what does it with the connection."""

    def __init__(self, reply):
        self.reply = reply
        self.connections, self.requests, self.gone = 0, [], 0
        self._writers = []

    async def handle(self, reader, writer):
        self.connections += 1
        self._writers.append(writer)
        with contextlib.suppress(ConnectionError, RuntimeError):  # uvloop's, of what is closed
            while (body := await asked(reader)) is not None:
                self.requests.append(body)
                if isinstance(self.reply, bytes):
                    writer.write(self.reply)
                    if self.reply is ENDS:
                        break
                elif await self.reply(reader, writer):
                    break
        self.gone += 1
        writer.close()

    @contextlib.asynccontextmanager
    async def running(self, host="127.0.0.1", **options):
        server = await asyncio.start_server(self.handle, host, 0, **options)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for writer in self._writers:
                writer.transport.abort()
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def upstream(address, **options):
    own = Upstream(Settings(upstream=address, **options))
    yield own
    await own.close()


async def ask(own, body=b"x"):
    async with own.sent("POST", "/v1/responses", body, {}) as came:
        return came.status, await own.whole(came)


async def until(true):
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.005)


@LOOPS
@pytest.mark.parametrize(
    ("reply", "connections"),
    [(OK, 1), (INFORMS, 1), (CLOSES, 3), (OLD, 3), (ENDS, 3), (MORE, 3)],
)
def test_a_connection_is_used_again_where_its_answer_lets_it(run, reply, connections):
    async def main():
        server = Server(reply)
        async with server.running() as port, upstream(f"http://127.0.0.1:{port}") as own:
            for number in range(3):
                assert await ask(own, b"%d" % number) == (200, b"ok")
            assert server.requests == [b"0", b"1", b"2"] and server.connections == connections

    run(main())


@LOOPS
def test_many_at_once_have_a_connection_each_and_idle_ones_are_closed(run, monkeypatch):
    monkeypatch.setattr(pool, "KEEP_S", 0.05)

    async def main():
        server = Server(OK)
        async with server.running() as port, upstream(f"http://127.0.0.1:{port}") as own:
            assert await asyncio.gather(*(ask(own) for _ in range(5))) == [(200, b"ok")] * 5
            assert server.connections == 5
            await until(lambda: server.gone == 5)
            assert await ask(own) == (200, b"ok") and server.connections == 6
            time.sleep(0.1)  # while which nobody could be told that it is too old
            assert await ask(own) == (200, b"ok") and server.connections == 7

    run(main())


@LOOPS
def test_one_that_the_provider_closed_while_it_was_idle_is_not_used(run):
    async def main():
        server = Server(ENDS)

        async def and_close(reader, writer):
            writer.write(OK)
            await writer.drain()
            return True

        server.reply = and_close
        async with server.running() as port, upstream(f"http://127.0.0.1:{port}") as own:
            for _ in range(3):
                assert await ask(own) == (200, b"ok")
                await asyncio.sleep(0.02)
            assert server.connections == len(server.requests) == 3

    run(main())


@LOOPS
def test_a_request_that_was_sent_is_not_sent_again(run):
    """A kept connection that is closed as the request comes: the provider may have been at work."""

    async def main():
        server = Server(OK)
        async with server.running() as port, upstream(f"http://127.0.0.1:{port}") as own:
            assert await ask(own) == (200, b"ok")

            async def shut(reader, writer):
                return True

            server.reply = shut
            with pytest.raises(Problem) as caught:
                await ask(own, b"once")
            assert "gave no answer" in caught.value.message
            assert (caught.value.status, caught.value.code) == (502, "upstream_failed")
            assert server.requests == [b"x", b"once"] and server.connections == 1

    run(main())


@LOOPS
@pytest.mark.parametrize("comes", [b"", b"HTTP/1.1 200 OK\r\n", OK[:-1]])
def test_who_is_given_up_is_told_so_by_the_end_of_the_connection(run, comes):
    async def main():
        async def never(reader, writer):
            writer.write(comes)
            await reader.read()
            return True

        server = Server(never)
        async with server.running() as port, upstream(f"http://127.0.0.1:{port}") as own:
            asking = asyncio.create_task(ask(own))
            await until(lambda: server.requests)
            await asyncio.sleep(0.01)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await until(lambda: server.gone)

    run(main())


@LOOPS
@pytest.mark.parametrize(("comes", "says"), [(OK[:20], "no answer"), (OK[:-2], "nothing more")])
def test_who_drips_is_given_up(run, comes, says):
    async def main():
        async def drip(reader, writer):
            for own in comes[:-1]:
                writer.write(bytes([own]))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(), 0.15)
            writer.write(comes[-1:])
            await reader.read()
            return True

        server = Server(drip)
        async with (
            server.running() as port,
            upstream(f"http://127.0.0.1:{port}", **SHORT) as own,
        ):
            with pytest.raises(Problem) as caught:
                await ask(own)
            assert caught.value.status == 504 and says in caught.value.message
            await until(lambda: server.gone)

    run(main())


def trusted(folder):
    """A certificate for localhost, made on the spot, and its key."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("needs openssl, to make a certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = [program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", cert]
    command += ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return cert, context


@LOOPS
def test_a_provider_behind_tls_is_believed_by_its_certificate_and_name(run, tmp_path, monkeypatch):
    cert, context = trusted(tmp_path)

    async def main():
        server = Server(OK)
        async with server.running(ssl=context) as port:
            with pytest.raises(NeverSent, match="certificate"):
                async with upstream(f"https://localhost:{port}") as own:
                    await ask(own)
            monkeypatch.setenv("SSL_CERT_FILE", str(cert))
            with pytest.raises(NeverSent, match="certificate"):
                async with upstream(f"https://127.0.0.1:{port}") as own:
                    await ask(own)
            assert not server.requests
            big = b"x" * 2**20
            async with upstream(f"https://localhost:{port}") as own:
                assert await ask(own, big) == (200, b"ok")
                assert await ask(own) == (200, b"ok")
            assert server.requests == [big, b"x"]
            await until(lambda: server.gone)

    run(main())


@LOOPS
def test_where_there_is_no_connection_nothing_was_sent(run):
    async def main():
        server = Server(OK)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            nobody = free.getsockname()[1]
        async with server.running() as port:
            for address in (
                f"http://127.0.0.1:{nobody}",
                f"https://127.0.0.1:{port}",  # which does not answer a handshake
                "http://nowhere.invalid",
                f"http://{'a' * 64}.invalid",
                "http://a..b",
            ):
                async with upstream(address, **SHORT) as own:
                    with pytest.raises(NeverSent, match="no connection"):
                        await ask(own)
            assert not server.requests

    run(main())


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@LOOPS
@pytest.mark.skipif(not has_ipv6(), reason="needs IPv6 on this machine")
def test_addresses_of_six_and_names_of_both_are_reached(run):
    async def main():
        six, four = Server(OK), Server(OK)
        async with six.running("::1") as port, upstream(f"http://[::1]:{port}/v1") as own:
            assert await ask(own) == (200, b"ok")
        async with four.running() as port, upstream(f"http://localhost:{port}") as own:
            assert await ask(own) == (200, b"ok")

    run(main())


@LOOPS
def test_an_answer_that_is_large_is_held_back_and_one_too_large_refused(run):
    size = 2**25
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size

    async def main():
        taken = 0

        async def much(reader, writer):
            nonlocal taken
            writer.write(head)
            for _ in range(size // 2**16):
                writer.write(b"x" * 2**16)
                await writer.drain()
                taken += 2**16

        server = Server(much)
        async with server.running() as port:
            async with upstream(f"http://127.0.0.1:{port}") as own:
                async with own.sent("POST", "/", b"x", {}) as came:
                    await asyncio.sleep(0.3)
                    # The rest is in the system's buffers.
                    assert sum(map(len, came._pieces)) <= 2 * 2**18 and taken < size
                    assert len(await own.whole(came)) == size
                assert (await ask(own))[0] == 200 and server.connections == 1
            async with upstream(f"http://127.0.0.1:{port}", largest_bytes=2**20) as own:
                with pytest.raises(Problem) as caught:
                    await ask(own)
                assert "more than 1048576 bytes" in caught.value.message
            await until(lambda: server.gone == 2)

    run(main())


def test_a_client_that_does_not_read_holds_its_provider_back(tmp_path):
    """What waits in the proxy stays bounded, whatever the provider has to say."""
    many, sent = 2**28 // 2**16, 0

    async def pour(provider, plain, receive, send):
        nonlocal sent
        kind = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        piece = event({"choices": [{"delta": {"content": "x" * 2**16}}]})
        for sent in range(many):  # noqa: B007
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            if provider.left.is_set():
                return
        provider.goes_on.set()

    async def main():
        async with place(tmp_path, Provider(pour)) as own:
            port = int(own.url.rpartition(":")[2])
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            raw = b'{"model": "known", "stream": true, "messages": []}'
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}"
            writer.write(f"{head}\r\ncontent-length: {len(raw)}\r\n\r\n".encode() + raw)
            await until(lambda: sent)
            before = -1
            while sent != before:
                before = sent
                await asyncio.sleep(0.2)
            assert sent < many / 2 and not own.provider.goes_on.is_set()
            own.provider.left.set()
            writer.transport.abort()
            assert not (await own.standing()).flying

    asyncio.run(main())
    (call,), _ = calls(tmp_path)
    assert call.status is Status.ABORTED and call.labels["error"] == "client_gone"
    assert CHAT["model"] == call.model
