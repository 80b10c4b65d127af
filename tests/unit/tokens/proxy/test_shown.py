"""What those see who look after a proxy: health, metrics, spans and the live page."""

import asyncio
import json
import re
import shutil
import socket
import subprocess
from importlib import resources

import pytest

from tests.unit.tokens.proxy.scripted import (
    CHAT,
    Provider,
    calls,
    completion,
    place,
    running,
    stream,
)
from weft.tokens.adapters import read_calls
from weft.tokens.call import Call, Status
from weft.tokens.proxy.metrics import MOST_SERIES, Metrics
from weft.tokens.proxy.page import page
from weft.tokens.proxy.spans import Spans, document, span_of
from weft.tokens.usage import Usage

LINE = re.compile(r'[a-z_]+(\{([a-z_]+="([^"\\\n]|\\.)*",?)+\})? -?[0-9.e+-]+')


def test_metrics_are_in_prometheus_text_format(tmp_path):
    async def run():
        async with place(tmp_path, Provider()) as own:
            await own.post()
            await own.post({**CHAT, "model": 'known"\n\\'})
            await own.standing()
            await own.post({"model": 3})
            return (await own.get("/metrics"))[2].decode()

    text = asyncio.run(run())
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(LINE.fullmatch(line) for line in lines)
    found = dict(line.rsplit(" ", 1) for line in lines)
    assert found['weft_calls_total{model="known",status="done"}'] == "1"
    assert found['weft_tokens_total{model="known",class="cache_read"}'] == "4"
    assert found['weft_refused_total{code="invalid_request"}'] == "1"
    assert float(found['weft_budget_spent{node="team",unit="usd",window="daily"}']) == 7e-5
    assert found['weft_own_seconds_bucket{le="+Inf"}'] == found["weft_own_seconds_count"] == "2"


def test_series_are_limited():
    metrics = Metrics()
    for number in range(MOST_SERIES + 10):
        metrics.add("weft_refused_total", code=str(number))
    assert 'weft_refused_total{code="other"} 10\n' in metrics.text([])


def test_spans_are_read_as_the_calls_that_they_are(tmp_path):
    parent = f"00-{'a' * 32}-{'b' * 16}-01"

    async def run():
        async with place(tmp_path, Provider(), spans=str(tmp_path / "spans.jsonl")) as own:
            await own.post(traceparent=parent, x_weft_agent="coder")
            own.provider.reply = completion(usage=None)
            await own.post()

    asyncio.run(run())
    lines = (tmp_path / "spans.jsonl").read_text().splitlines()
    read = [call for line in lines for call in read_calls("", json.loads(line))]
    booked = sorted(calls(tmp_path)[0], key=lambda call: call.at)
    (first, second), (own, _) = sorted(read, key=lambda call: call.at), booked
    assert (first.usage, first.model, first.agent) == (own.usage, "known", "coder")
    assert first.seconds == pytest.approx(own.seconds, abs=1e-6)
    assert first.parent == f"{'a' * 32}-{'b' * 16}" or "b" * 16 in first.parent
    assert not second.usage.is_exact or second.usage.input.high is None
    assert json.loads(document([span_of(own, "")]))["resourceSpans"]


@pytest.mark.parametrize("status", list(Status))
def test_a_span_says_what_the_call_is(status):
    call = Call(
        id="c1",
        source="weft",
        at=1e9,
        seconds=2.0,
        model="known",
        provider="anthropic",
        usage=Usage.of(fresh=5, cache_write_5m=2, cache_write_1h=3, text=1),
        status=status,
        tier="batch",
    )
    (read,) = read_calls("", json.loads(document([span_of(call, "")])))
    assert (read.source, read.id, read.tier, read.status) == ("weft", "c1", "batch", status)
    # Conventions have one count for writes to a cache; it is all there.
    assert read.usage.input.low == 10


def test_spans_wait_for_a_collector_that_refuses_them(tmp_path):
    """One that is down at first, then full, then well: each span arrives once."""

    async def collect(collector, body, receive, send):
        if len(collector.seen) < 2:
            collector.status = 503
        else:
            collector.status = 200
            collector.left.set()
        return {}

    async def run():
        collector, spans = Provider(collect), None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            spans = Spans(f"http://127.0.0.1:{free.getsockname()[1]}/v1/traces")
        spans.add({"name": "one"})
        await spans._send()
        async with running(collector) as address:
            spans._where = f"{address}/v1/traces"
            spans.add({"name": "two"})
            await spans._send()
            await spans.open()
            await asyncio.wait_for(collector.left.wait(), 5)
            await spans.close()
        assert [path for path, _, _ in collector.seen] == ["/v1/traces"] * 2
        _, headers, plain = collector.seen[-1]
        assert headers["content-type"] == "application/json"
        (scope,) = plain["resourceSpans"][0]["scopeSpans"]
        assert [span["name"] for span in scope["spans"]] == ["one", "two"]

    asyncio.run(run())


def test_the_page_and_its_state_are_for_this_machine_alone(tmp_path):
    async def run():
        async with place(tmp_path, Provider(), style=":root { color: red }") as own:
            status, headers, body = await own.get("/")
            assert status == 200 and b"color: red" in body
            assert "default-src 'none'" in headers["content-security-policy"]
            assert b"http" not in body.replace(b"http://www.w3.org/2000/svg", b"")
            await own.post()
            await own.standing()
            state = json.loads((await own.get("/state"))[2])
            nodes = {cap["node"]: cap for cap in state["caps"]}
            assert nodes["team/a"]["left"] == "0.999965 usd" and nodes["team"]["price"] > 0
            assert state["totals"]["calls"] == 1
            asked = []

            async def say(message):
                asked.append(message)

            scope = {"type": "http", "method": "GET", "path": "/state", "headers": []}
            await own.proxy({**scope, "client": ("10.0.0.1", 1)}, None, say)
            assert asked[0]["status"] == 403

    asyncio.run(run())


CHROMIUM = shutil.which("chromium")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")
def test_the_page_shows_budgets_in_a_browser(tmp_path):
    style = resources.files("weft.report").joinpath("style.css").read_text()

    async def run():
        async with place(tmp_path, Provider(stream()), style=style) as own:
            for _ in range(3):
                await own.post({**CHAT, "stream": True})
            await own.post(key="sk-poor")
            await own.standing()
            options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000"]
            process = await asyncio.create_subprocess_exec(
                *(str(CHROMIUM), *options, f"--user-data-dir={tmp_path}/browser", "--dump-dom"),
                own.url + "/",
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            out, _ = await process.communicate()
            return out.decode()

    dom = asyncio.run(run())
    text = " ".join(
        re.sub(r"<script.*?</script>|<style.*?</style>|<[^>]+>", " ", dom, flags=re.S).split()
    )
    assert "team/poor" in text and "0.000105 usd" in text
    assert "is nearest to its cap" in text and "read again every second" in text
    assert re.search(r"3 calls that ended since the start", text)
    assert re.search(r"1 requests that were refused", text)
    assert "<polyline points=" in dom


def test_the_page_is_whole_without_a_style():
    text = page("")
    assert text.startswith("<!doctype html>") and "/* style */" not in text
