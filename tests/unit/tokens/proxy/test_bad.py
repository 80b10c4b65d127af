"""Providers that lie, hang and break off; clients that leave. Nothing is lost or counted twice."""

import asyncio
import json
import socket

import openai
import pytest

from tests.unit.tokens.proxy.scripted import (
    CHAT,
    SPENT_NANO,
    UPSTREAM_KEY,
    USAGE,
    Provider,
    calls,
    chunk,
    completion,
    place,
    stream,
)
from weft.tokens import Count, Money, Status

LIES = {
    "missing": None,
    "text": "seven",
    "a list": [1, 2],
    "negative": {**USAGE, "completion_tokens": -7, "total_tokens": 2},
    "not a number": {**USAGE, "prompt_tokens": "many"},
    "a fraction": {**USAGE, "completion_tokens": 6.5},
    "no output": {"prompt_tokens": 9},
    "empty": {},
    "a sum that is none": {**USAGE, "total_tokens": 1},
    "a part beyond its whole": {**USAGE, "completion_tokens_details": {"reasoning_tokens": 8}},
    "more than was allowed": {"prompt_tokens": 9, "completion_tokens": 1001},
    "more than was sent": {"prompt_tokens": 10**6, "completion_tokens": 7},
    "beyond numbers": {"prompt_tokens": 9, "completion_tokens": 10**30},
    "deep": {"prompt_tokens": {"a": [[[]]]}, "completion_tokens": 7},
    "less than came": {"prompt_tokens": 9, "completion_tokens": 1},
}
LONG = "word " * 60  # 300 bytes are three tokens at least


def worst(body, tokens=1000):
    """What a call can cost at most: each byte sent a token, and all that was allowed."""
    from weft.tokens.proxy.request import TEMPLATE_TOKENS

    size = len(json.dumps(body).encode()) + TEMPLATE_TOKENS
    return size, Money(size * 1000 + tokens * 4000)


@pytest.mark.parametrize("streams", [False, True])
def test_a_report_that_cannot_be_is_kept_aside_and_bounds_are_settled(streams, tmp_path):
    body = {**CHAT, "stream": True} if streams else CHAT

    async def run():
        async with place(tmp_path, Provider()) as own:
            for usage in LIES.values():
                pieces = stream(usage=usage, words=[LONG])
                own.provider.reply = pieces if streams else completion(usage=usage, text=LONG)
                status, _, raw = await own.post(body)
                assert status == 200 and LONG in raw.decode()
            assert (await own.standing()).spent == worst(body)[1] * len(LIES)
            metrics = (await own.get("/metrics"))[2].decode()
            assert f'weft_disbelieved_total{{model="known"}} {len(LIES)}\n' in metrics

    asyncio.run(run())
    found, bad = calls(tmp_path)
    assert len(found) == len(bad) == len(LIES)
    size, _ = worst(body)
    for call in found:
        assert (call.usage.input, call.usage.output) == (Count(0, size), Count(3, 1000))
        assert call.status is Status.DONE
    assert {own.line for own in bad} == set(range(1, len(LIES) + 1))
    assert any("-7" in own.record for own in bad) and all("need" in own.reason for own in bad)


def test_what_is_no_json_is_passed_on_and_paid_at_its_bound(tmp_path):
    async def garble(provider, body, receive, send):
        kind = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        await send({"type": "http.response.body", "body": b'{"usage": {"prompt_tokens": 1'})

    async def run():
        async with place(tmp_path, Provider(garble)) as own:
            assert (await own.post())[2] == b'{"usage": {"prompt_tokens": 1'
            assert (await own.standing()).spent == worst(CHAT)[1]

    asyncio.run(run())
    assert len(calls(tmp_path)[1]) == 1


def test_a_client_that_leaves_a_stream_stops_the_provider_and_pays_at_most_what_was_allowed(
    tmp_path,
):
    body = {**CHAT, "stream": True, "max_tokens": 50}

    async def slow(provider, plain, receive, send):
        kind = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        await send({"type": "http.response.body", "body": chunk(LONG), "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        provider.left.set()

    async def run():
        async with place(tmp_path, Provider(slow)) as own:
            async with openai.AsyncOpenAI(
                base_url=own.url + "/v1", api_key="sk-test", max_retries=0
            ) as asking:
                answer = await asking.chat.completions.create(**body)
                assert (await anext(aiter(answer))).choices[0].delta.content == LONG
                await answer.close()
            async with asyncio.timeout(5):
                await own.provider.left.wait()
            standing = await own.standing()
            assert standing.flying == 0
            assert standing.spent.nano == pytest.approx(worst(body, 50)[1].nano, rel=0.05)

    asyncio.run(run())
    (call,), bad = calls(tmp_path)
    assert call.status is Status.ABORTED and call.labels["error"] == "client_gone"
    assert call.usage.output == Count(3, 50) and not bad


def test_a_client_that_leaves_before_an_answer_stops_the_provider(tmp_path):
    async def never(provider, plain, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass
        provider.left.set()

    async def run():
        async with place(tmp_path, Provider(never)) as own:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(own.post(), 0.3)
            async with asyncio.timeout(5):
                await own.provider.left.wait()
            assert (await own.standing()).spent == worst(CHAT)[1]

    asyncio.run(run())
    (call,), _ = calls(tmp_path)
    assert (call.status, call.usage.output) == (Status.ABORTED, Count(0, 1000))


def test_a_client_that_leaves_after_the_usage_pays_what_it_says(tmp_path):
    async def last(provider, plain, receive, send):
        kind = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        pieces = b"".join(stream()[:-1])
        await send({"type": "http.response.body", "body": pieces, "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    async def run():
        async with place(tmp_path, Provider(last)) as own:
            body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
            async with own.session.post(
                own.url + "/v1/chat/completions",
                json=body,
                headers={"authorization": "Bearer sk-test"},
            ) as reply:
                await reply.content.readuntil(b"total_tokens")
            assert (await own.standing()).spent == Money(SPENT_NANO)

    asyncio.run(run())
    (call,), bad = calls(tmp_path)
    assert call.usage.is_exact and call.status is Status.ABORTED and not bad


async def hang_at_once(provider, plain, receive, send):
    await provider.goes_on.wait()


async def hang_within(provider, plain, receive, send):
    kind = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": kind})
    await send({"type": "http.response.body", "body": chunk("Once"), "more_body": True})
    await provider.goes_on.wait()


async def trickle(provider, plain, receive, send):
    kind = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": kind})
    while not provider.goes_on.is_set():
        await send({"type": "http.response.body", "body": chunk("x"), "more_body": True})
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("reply", [hang_at_once, hang_within, trickle])
def test_a_provider_that_hangs_is_given_up(reply, tmp_path):
    waits = {"first_s": 0.2, "between_s": 0.2, "total_s": 0.6}

    async def run():
        async with place(tmp_path, Provider(reply), **waits) as own:
            status, _, raw = await own.post({**CHAT, "stream": True})
            if reply is hang_at_once:
                assert status == 504
            else:
                assert status == 200 and b"[DONE]" not in raw
            last = raw.strip().split(b"\n\n")[-1].removeprefix(b"data: ")
            assert json.loads(last)["error"]["code"] == "upstream_timeout"
            own.provider.goes_on.set()
            assert (await own.standing()).spent == worst({**CHAT, "stream": True})[1]

    asyncio.run(run())
    (call,), _ = calls(tmp_path)
    assert (call.status, call.labels["error"]) == (Status.ABORTED, "upstream_timeout")


def test_what_breaks_off_is_an_error_of_the_stream(tmp_path):
    async def handle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        piece = chunk("Once")
        writer.write(head + b"transfer-encoding: chunked\r\n\r\n")
        writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        await writer.drain()
        writer.close()

    async def run():
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with place(tmp_path, Provider(), upstream=address) as own:
            async with openai.AsyncOpenAI(
                base_url=own.url + "/v1", api_key="sk-test", max_retries=0
            ) as asking:
                answer = await asking.chat.completions.create(**CHAT, stream=True)
                with pytest.raises(openai.APIError, match="broke off"):
                    async for _ in answer:
                        pass
            standing = await own.standing()
            assert standing.spent.nano == pytest.approx(worst(CHAT)[1].nano, rel=0.05)
        server.close()

    asyncio.run(run())


def test_where_nobody_listens_nothing_is_spent(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"

    async def run():
        async with place(tmp_path, Provider(), upstream=address) as own:
            status, _, raw = await own.post()
            assert (status, json.loads(raw)["error"]["code"]) == (502, "no_connection")
            standing = await own.standing()
            assert not standing.spent.nano and not standing.held.nano

    asyncio.run(run())
    (call,), _ = calls(tmp_path)
    assert call.status is Status.FAILED and call.usage.total().high == 0


@pytest.mark.parametrize(("status", "seen"), [(429, 429), (500, 500), (400, 400), (307, 502)])
def test_a_providers_errors_cost_nothing(status, seen, tmp_path):
    error = {"error": {"message": "no", "type": "t", "code": "c", "param": None}}

    async def run():
        async with place(tmp_path, Provider(error)) as own:
            own.provider.status = status
            got, _, raw = await own.post()
            assert got == seen and (seen == 502 or json.loads(raw) == error)
            assert not (await own.standing()).spent.nano

    asyncio.run(run())
    (call,), bad = calls(tmp_path)
    assert call.status is Status.FAILED and call.labels["error"] == str(status) and not bad


def test_the_providers_key_is_not_shown_when_it_is_refused(tmp_path):
    async def run():
        reply = {"error": {"message": f"bad key {UPSTREAM_KEY}"}}
        async with place(tmp_path, Provider(reply)) as own:
            own.provider.status = 401
            status, headers, raw = await own.post()
            assert status == 502 and UPSTREAM_KEY not in str(headers) + raw.decode()
            assert UPSTREAM_KEY not in repr(own.proxy.house.settings)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "JSON"),
        (b"[]", "an object"),
        (b'{"model": "known", "temperature": NaN}', "NaN"),
        (b'{"messages": []}', "model"),
        (b'{"model": "known", "max_tokens": 0}', "max_tokens"),
        (b'{"model": "known", "max_tokens": "9"}', "max_tokens"),
        (b'{"model": "known", "max_completion_tokens": true}', "max_completion_tokens"),
        (b'{"model": "known", "n": 129}', "128"),
        (b'{"model": "odd"}', "price of odd"),
        (b'{"a":' * 100_000, "JSON"),
    ],
)
def test_requests_that_cannot_be_bounded_are_refused(raw, says, tmp_path):
    async def run():
        async with place(tmp_path, Provider()) as own:
            status, _, body = await own.post(raw)
            assert status == 400 and says in json.loads(body)["error"]["message"]
            assert own.provider.seen == []
            big = await own.post(b" " * 2000)
            assert big[0] == 400

    asyncio.run(run())


def test_a_limit_that_stands_there_twice_is_sent_once(tmp_path):
    async def run():
        async with place(tmp_path, Provider()) as own:
            raw = b'{"model": "known", "max_tokens": 99999, "messages": [], "max_tokens": 10}'
            assert (await own.post(raw))[0] == 200
            assert own.provider.seen[0][2] == {"model": "known", "max_tokens": 10, "messages": []}

    asyncio.run(run())


def test_when_nothing_can_be_written_nothing_is_spent(tmp_path):
    async def run():
        async with place(tmp_path, Provider()) as own:
            own.proxy.house.desk._troubles["ledger"] = "the disc is full"
            status, _, raw = await own.post()
            assert status == 503 and "the disc is full" in raw.decode()
            assert (await own.get("/healthz"))[0] == 503 and own.provider.seen == []
            own.proxy.house.desk._troubles.clear()
            assert (await own.get("/healthz"))[0] == 200

    asyncio.run(run())
