"""Answers of all shapes, whole, broken and endless, and requests that nobody can forge."""

import asyncio
from itertools import pairwise

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.tokens.proxy.connection import (
    MOST_HEAD_BYTES,
    MOST_WAITING_BYTES,
    Broken,
    Connection,
)
from weft.tokens.proxy.settings import Settings
from weft.tokens.proxy.upstream import _FORWARDED, Upstream

SOON_S = 5.0


class Wire:
    """A transport that sends nothing, and a connection that hears what it is told."""

    def __init__(self):
        self.sent, self.is_paused, self.is_ended, self.unsent = b"", False, False, 0
        self.own = Connection()
        self.own.connection_made(self)

    def writelines(self, pieces):
        self.sent += b"".join(pieces)

    def pause_reading(self):
        self.is_paused = True

    def resume_reading(self):
        assert not self.is_ended
        self.is_paused = False

    def abort(self):
        self.is_ended = True

    def is_closing(self):
        return self.is_ended

    def get_write_buffer_size(self):
        return self.unsent

    def hears(self, raw, cuts=(), *, ends=False):
        ends_at = [0, *sorted({min(cut, len(raw)) for cut in cuts}), len(raw)]
        for start, end in pairwise(ends_at):
            if start < end and not self.is_ended:
                self.own.data_received(raw[start:end])
        if ends and not self.is_ended:
            self.own.eof_received()
            self.is_ended = True
            self.own.connection_lost(None)


async def answer(wire, raw, cuts=(), *, ends=False):
    """Status, headers and body of an answer that comes in pieces."""
    asking = asyncio.create_task(wire.own.ask((b"GET / HTTP/1.1\r\n\r\n",), SOON_S))
    await asyncio.sleep(0)
    wire.hears(raw, cuts, ends=ends)
    await asking
    body = b""
    while piece := await wire.own.piece(SOON_S):
        body += piece
    return wire.own.status, wire.own.headers, body


def framed(body, framing, sizes=()):
    """Headers that say where a body ends, and the body as it is then sent."""
    if framing == "length":
        return b"Content-Length: %d\r\n" % len(body), body
    if framing == "end":
        return b"", body
    out, start = b"", 0
    for size in [*sizes, len(body)]:
        piece = body[start : start + size]
        if piece:
            out += b"%x;x=y\r\n%s\r\n" % (len(piece), piece)
        start += len(piece)
    return b"Transfer-Encoding: chunked\r\n", out + b"0\r\nX-Trailer: t\r\n\r\n"


bodies = st.one_of(st.binary(max_size=60), st.just(b"HTTP/1.1 200 OK\r\n\r\n"))
INFORMATIONAL = (b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n")


@settings(deadline=None)
@given(
    body=bodies,
    framing=st.sampled_from(["length", "chunked", "end"]),
    sizes=st.lists(st.integers(1, 20), max_size=4),
    version=st.sampled_from([b"1.1", b"1.0"]),
    status=st.sampled_from([200, 404, 500, 599]),
    before=st.lists(st.sampled_from(INFORMATIONAL), max_size=3),
    says=st.sampled_from([b"", b"Connection: close\r\n", b"Connection: keep-alive\r\n"]),
    cuts=st.lists(st.integers(0, 300), max_size=8),
)
def test_an_answer_is_the_same_however_it_is_framed_and_cut(
    body, framing, sizes, version, status, before, says, cuts
):
    head, sent = framed(body, framing, sizes)
    raw = b"".join(before) + b"HTTP/%s %d X\r\nX-One: 1\r\n" % (version, status) + says + head
    raw += b"\r\n" + sent

    async def run():
        wire = Wire()
        got = await answer(wire, raw, cuts, ends=framing == "end")
        names = dict(got[1])
        assert (got[0], names[b"x-one"], got[2]) == (status, b"1", body)
        assert b"x-trailer" not in names and b"link" not in names
        old = version == b"1.0"
        stays = framing != "end" and b"close" not in says and (not old or b"alive" in says)
        assert wire.own.is_free == stays
        if stays:  # and what follows is another answer
            assert (await answer(wire, raw, cuts))[2] == body

    asyncio.run(run())


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
BROKEN = {
    "a folded header": HEAD + b"x: a\r\n b\r\ncontent-length: 0\r\n\r\n",
    "lines without returns": b"HTTP/1.1 200 OK\nx: a\ncontent-length: 0\n\n",
    "no status line": b"hello\r\n\r\n",
    "of another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "of HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "a status that is none": b"HTTP/1.1 2x0 OK\r\n\r\n",
    "a status below all": b"HTTP/1.1 099 X\r\ncontent-length: 0\r\n\r\n",
    "a status beyond all": b"HTTP/1.1 999 X\r\ncontent-length: 0\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    "two lengths": HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "a length and chunks": HEAD
    + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "a length that is none": HEAD + b"content-length: -1\r\n\r\n",
    "a header without a name": HEAD + b": x\r\n\r\n",
    "a header with a space in its name": HEAD + b"content length: 1\r\n\r\n",
    "a NUL": HEAD + b"x: a\x00b\r\ncontent-length: 0\r\n\r\n",
    "a head without an end": HEAD + b"x: y\r\n",
    "a body that breaks off": HEAD + b"content-length: 10\r\n\r\nabc",
    "chunks that break off": CHUNKED + b"3\r\nabc\r\n",
    "a chunk that breaks off": CHUNKED + b"5\r\nabc",
    "a chunk of no size": CHUNKED + b"x\r\nabc\r\n0\r\n\r\n",
    "a chunk that is longer than it says": CHUNKED + b"2\r\nabc\r\n0\r\n\r\n",
    "a coding without chunks": HEAD + b"transfer-encoding: gzip\r\n\r\nabc",
    "nothing": b"",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_answer_or_breaks_off_is_an_error_and_the_end_of_its_connection(name):
    async def run():
        for cuts in ((), range(len(BROKEN[name]))):
            wire = Wire()
            with pytest.raises(Broken):
                await answer(wire, BROKEN[name], cuts, ends=True)
            assert wire.is_ended and not wire.own.is_free

    asyncio.run(run())


@pytest.mark.parametrize(
    "flood",
    [
        HEAD + b"x: " + b"y" * 2 * MOST_HEAD_BYTES,
        HEAD + b"x: y\r\n" * MOST_HEAD_BYTES,
        b"HTTP/1.1 200 " + b"K" * 2 * MOST_HEAD_BYTES,
        CHUNKED + b"1\r\na\r\n1;" + b"x" * 2 * MOST_HEAD_BYTES,
        CHUNKED + b"1\r\na\r\n0\r\nx: " + b"y" * 2 * MOST_HEAD_BYTES,
    ],
)
def test_a_head_or_a_trailer_without_an_end_is_not_kept(flood):
    async def run():
        wire = Wire()
        with pytest.raises(Broken, match=f"more than {MOST_HEAD_BYTES} bytes"):
            await answer(wire, flood, range(0, len(flood), 1000))
        assert wire.is_ended

    asyncio.run(run())


WHOLE = HEAD + b"content-length: 2\r\n\r\nok"


@pytest.mark.parametrize("rest", [b"garbage", WHOLE, b"HTTP/1.1 500 X\r\n\r\n"])
def test_what_follows_an_answer_is_no_answer_to_the_next_request(rest):
    async def run():
        together, apart, later = Wire(), Wire(), Wire()
        assert (await answer(together, WHOLE + rest))[2] == b"ok"
        assert (await answer(apart, WHOLE + rest, [len(WHOLE)]))[2] == b"ok"
        assert (await answer(later, WHOLE))[2] == b"ok"
        assert later.own.is_free
        later.hears(rest)
        for wire in (together, apart, later):
            assert wire.is_ended and not wire.own.is_free

    asyncio.run(run())


def test_a_connection_is_not_free_while_some_of_its_request_is_unsent():
    async def run():
        wire = Wire()
        wire.unsent = 1
        assert (await answer(wire, WHOLE))[2] == b"ok"
        assert not wire.own.is_free

    asyncio.run(run())


def test_no_more_is_read_while_what_came_is_not_taken():
    async def run():
        wire = Wire()
        asking = asyncio.create_task(wire.own.ask((b"",), SOON_S))
        await asyncio.sleep(0)
        wire.hears(HEAD + b"content-length: %d\r\n\r\n" % (4 * MOST_WAITING_BYTES))
        await asking
        half = b"x" * (MOST_WAITING_BYTES // 2)
        wire.hears(half)
        assert not wire.is_paused
        wire.hears(half)
        assert wire.is_paused
        assert await wire.own.piece(SOON_S) == half + half
        assert not wire.is_paused
        with pytest.raises(TimeoutError):
            await wire.own.piece(0.01)

    asyncio.run(run())


names = st.sampled_from([*_FORWARDED, "cookie", "x"])
values = st.text(st.characters(max_codepoint=0x200), max_size=20)


@settings(deadline=None)
@given(client=st.dictionaries(names, values), body=st.binary())
def test_no_header_of_a_clients_can_become_another_request(client, body):
    """A parser on the other side sees one request, with what was meant."""
    seen = []

    class Other:
        def on_url(self, url):
            seen.append(url)

        def on_header(self, name, value):
            seen.append((name.decode("latin-1"), value.decode("latin-1")))

        def on_body(self, data):
            seen.append(data)

        def on_message_complete(self):
            seen.append("end")

    upstream = Upstream(Settings(upstream="http://x:1/api/v1", upstream_key="sk-1"))
    raw = upstream._head("POST", "/v1/responses", len(body), client) + body
    httptools.HttpRequestParser(Other()).feed_data(raw)
    url, *headers = seen[: seen.index("end")]
    assert seen[-1] == "end" and seen.count("end") == 1 and url == b"/api/v1/responses"
    found = dict(own for own in headers if isinstance(own, tuple))
    assert b"".join(own for own in headers if isinstance(own, bytes)) == body
    assert found.pop("authorization") == "Bearer sk-1" and found.pop("host") == "x:1"
    for name in ("content-type", "accept-encoding"):
        del found[name]
    found.pop("content-length", None)
    assert all(client[name].strip(" \t") == value for name, value in found.items())
    kept = {name for name in client if name in _FORWARDED and client[name].isprintable()}
    assert {name for name in kept if client[name].isascii()} <= set(found)
