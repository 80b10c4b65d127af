"""What requests, events, prices and keys are made of."""

import hashlib
import json
import math
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.tokens.proxy.scripted import CHAT, WORDS, event, stream
from weft.core.errors import FileError, InputError
from weft.tokens import NANO, Money, TokenClass, usd
from weft.tokens.allocate.pacing import Pace, pace_update
from weft.tokens.budgets import Cap, parse_window
from weft.tokens.budgets.records import Account
from weft.tokens.prices import Rates, Step
from weft.tokens.proxy.answer import Answer, Part
from weft.tokens.proxy.events import Events, data_of, event_of
from weft.tokens.proxy.keys import Keyring, add_key, read_keys
from weft.tokens.proxy.problems import window_left
from weft.tokens.proxy.request import IMAGE_TOKENS, TEMPLATE_TOKENS, Api, read_request
from weft.tokens.proxy.settings import Settings
from weft.tokens.proxy.shadow import ShadowPrices
from weft.tokens.proxy.terms import Tariff

SETTINGS = Settings(upstream="http://127.0.0.1:1")


@given(st.binary(max_size=4), st.lists(st.integers(0, 400), max_size=12))
def test_events_are_the_same_however_they_are_cut(noise, cuts):
    whole = b": " + noise.replace(b"\r", b"").replace(b"\n", b"") + b"\n\n" + b"".join(stream())
    ends = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    for text in (whole, whole.replace(b"\n", b"\r\n")):
        grown = sorted({min(len(text), end + len(text) - len(whole)) for end in ends} | {0})
        events = Events()
        found = [e for a, b in pairwise(grown) for e in events.feed(text[a:b])]
        assert b"".join(found) + events.rest == text
        if b"\r" not in text or events.rest == b"":
            plain = [event_of(data_of(own)) for own in found]
            words = [p["choices"][0]["delta"].get("content") for p in plain if p and p["choices"]]
            assert words[:4] == list(WORDS)


def test_data_of_several_lines_is_joined_and_comments_have_none():
    assert data_of(b"event: x\ndata: a\ndata:b\n\n") == b"a\nb"
    assert data_of(b": ping\r\n\r\n") == b"" and event_of(b"nonsense") is None


def test_what_was_seen_of_tools_and_thoughts_counts():
    answer = Answer(Api.CHAT)
    delta = {
        "reasoning_content": "x" * 128,
        "tool_calls": [{"function": {"arguments": "y" * 129}}, None],
        "content": None,
    }
    part = answer.event(event({"choices": [{"delta": delta}, "odd"], "usage": None}))
    assert (part, answer.seen, answer.is_whole) == (Part.TEXT, 3, False)


numbers = st.one_of(st.none(), st.integers(1, 10**6))


@settings(deadline=None)
@given(max_tokens=numbers, completion=numbers, n=st.one_of(st.none(), st.integers(1, 5)))
def test_a_grant_holds_the_provider_to_what_it_pays_for(max_tokens, completion, n):
    """Whatever was asked for: what is sent can cost at most what is held."""
    plain = {**CHAT, "max_tokens": max_tokens, "max_completion_tokens": completion, "n": n}
    request = read_request(Api.CHAT, json.dumps(plain).encode(), SETTINGS)
    prices = {TokenClass.FRESH: Decimal("1.25e-6"), TokenClass.TEXT: Decimal("1e-5")}
    terms = Tariff(Book(Step(usd=prices))).terms(request, "", ("tokens", "usd"))
    for share in (0, 1, 7, 10):
        held = [
            Money(a.nano + (b.nano - a.nano) * share // 10, a.currency)
            for a, b in zip(terms.least, terms.most, strict=True)
        ]
        limit = terms.limit(held)
        sent = json.loads(request.body(limit))
        limits = [sent[name] for name in ("max_tokens", "max_completion_tokens") if name in sent]
        assert limits and set(limits) == {limit}
        choices = n or 1
        size = request.input_bound
        assert (size + limit * choices) * NANO <= held[0].nano
        cost = (size * Decimal("1.25e-6") + limit * choices * Decimal("1e-5")) * NANO
        assert cost <= held[1].nano
        asked = [own for own in (max_tokens, completion) if own is not None]
        assert limit <= min(asked, default=SETTINGS.max_tokens)


class Book:
    def __init__(self, *steps):
        self.steps = steps

    def rate(self, provider, model, at, *, tier=""):
        return Rates(provider=provider, model=model, steps=self.steps)


def test_the_dearest_step_that_may_be_reached_is_reserved_for():
    cheap = Step(usd={TokenClass.FRESH: Decimal("1e-6"), TokenClass.TEXT: Decimal("2e-6")})
    dear = Step(
        above=2000, usd={TokenClass.FRESH: Decimal("3e-6"), TokenClass.TEXT: Decimal("1e-6")}
    )
    for text, price, out in (("x", "1e-6", 2), ("x" * 2000, "3e-6", 2)):
        body = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": text}]}
        request = read_request(Api.CHAT, json.dumps(body).encode(), SETTINGS)
        terms = Tariff(Book(cheap, dear)).terms(request, "", ("usd",))
        fixed = usd(Decimal(price) * request.input_bound, up=True)
        assert terms.most == (fixed + Money(10 * out * 1000),)


def test_sound_without_a_price_is_refused():
    step = Step(usd={TokenClass.FRESH: Decimal(1), TokenClass.TEXT: Decimal(1)})
    sound = [{"type": "input_audio", "input_audio": {"data": "AA"}}]
    body = {"model": "m", "messages": [{"role": "user", "content": sound}]}
    request = read_request(Api.CHAT, json.dumps(body).encode(), SETTINGS)
    with pytest.raises(InputError, match="price of m"):
        Tariff(Book(step)).terms(request, "", ("usd",))


def bound(**plain):
    raw = json.dumps({"model": "m", **plain}).encode()
    api = Api.RESPONSES if "input" in plain else Api.CHAT
    return read_request(api, raw, SETTINGS).input_bound - len(raw)


def test_what_a_request_does_not_hold_is_bounded_by_the_context():
    context = SETTINGS.context_tokens
    assert bound(messages=[{"role": "user", "content": "hi"}]) == TEMPLATE_TOKENS
    for kept in (
        {"input": "x", "previous_response_id": "r"},
        {"input": "x", "tools": [{"type": "web_search"}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
    ):
        assert bound(**kept) > context - 1000
    assert bound(input="x", tools=[{"type": "function"}, {"type": "custom"}]) == TEMPLATE_TOKENS
    url = "data:image/png;base64," + "A" * 10_000
    for part in (
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "input_image", "image_url": url},
    ):
        found = bound(messages=[{"role": "user", "content": [part]}])
        assert found == TEMPLATE_TOKENS + IMAGE_TOKENS - len(url)


def test_an_answer_that_nobody_waits_for_is_refused():
    with pytest.raises(InputError, match="background"):
        read_request(Api.RESPONSES, b'{"model": "m", "background": true}', SETTINGS)


ADDRESSES = (
    *("ftp://x", "x", "http://", "http://a:b@x", "http://x:0", "http://x:99999", "http://x:y"),
    *("http://x/v1?key=1", "http://x/#v1", "http://x/a b", "http://x/\r\nhost: y", "http://[::1"),
    "http://b\u00fccher",
)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"upstream": own} for own in ADDRESSES),
        {"first_s": 0},
        {"upstream_key": "sk-1\n"},
        {"upstream_key": "sk-1\r\nx-admin: 1"},
        {"upstream_key": "sk-\u2026"},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(InputError) as caught:
        Settings(**{"upstream": "http://x", **wrong})
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize("given", ["http://x:1/v1/", "https://[::1]:1/api", "https://x/@me/v1"])
def test_addresses_of_providers_are_taken_with_or_without_their_version(given):
    assert Settings(upstream=given).base == given.rstrip("/").removesuffix("/v1")


TWICE = "keys: {k: coder, k: team}"


def test_keys_are_kept_as_digests_and_shown_once(tmp_path):
    path = tmp_path / "keys.yaml"
    key, other = add_key(path, "coder"), add_key(path, "team/x")
    assert key not in path.read_text() and key != other
    ring = Keyring(read_keys(path, ["", "coder", "team/*"]))
    nodes = [ring.node_of(f"Bearer {own}") for own in (key, other, "sk-weft-x")]
    assert nodes == ["coder", "team/x", None] and ring.node_of(f"Basic {key}") is None
    path.write_text("keys: {plain: coder}")
    assert read_keys(path, ["coder"]) == {hashlib.sha256(b"plain").hexdigest(): "coder"}
    for text, says in (
        ("keys: {k: odd}", "nodes"),
        ("[]", "keys"),
        ("a: [", "YAML"),
        (TWICE, "'k' stands twice"),
    ):
        path.write_text(text)
        with pytest.raises(FileError, match=says):
            read_keys(path, ["coder"])


@pytest.mark.parametrize(
    "text", [b"keys: {plain: coder}", b"nodes:\n", b"\xff\xfe", b"keys:\n    k: a\n"]
)
def test_a_key_is_added_to_no_file_that_it_would_spoil(tmp_path, text):
    path = tmp_path / "keys.yaml"
    path.write_bytes(text)
    with pytest.raises(InputError, match="a file of keys"):
        add_key(path, "coder")
    assert path.read_bytes() == text


def test_whether_a_stream_is_asked_for_is_said_by_true_or_false():
    for asks in (True, False, None):
        asked = read_request(Api.CHAT, json.dumps({**CHAT, "stream": asks}).encode(), SETTINGS)
        assert asked.is_stream is bool(asks)
    for odd in ("true", 1, []):  # which some providers take for true
        with pytest.raises(InputError, match="as stream"):
            read_request(Api.CHAT, json.dumps({**CHAT, "stream": odd}).encode(), SETTINGS)


def test_the_price_is_one_at_the_windows_pace_and_rises_beyond_it():
    """A thousand calls of an hour's budget; each costs its share, twice that, or half of it."""
    window, prices = parse_window(3600), {}
    for share in (0.5, 1.0, 2.0):
        shadow, spent = ShadowPrices(), 0
        for second in range(0, 3000, 3):
            cost = round(share * 1e9 / 1200)
            spent += cost
            own = Account(node="a", unit="usd", window=window, cap=10**9, spent=spent)
            own.cap += spent  # what is left stays what it is
            shadow.settled([own], [Money(cost)], 1e9 + second)
        prices[share] = shadow.price([own])
    assert prices[0.5] < 0.5 < 0.8 < prices[1.0] < 1.5 < 2.0 < prices[2.0]
    lasting = Account(node="a", unit="usd", window=parse_window("none"), cap=1)
    assert ShadowPrices().price([lasting]) is None


@given(
    costs=st.lists(st.integers(0, 10**10), min_size=1, max_size=20),
    cap=st.integers(0, 10**12),
    pause_s=st.sampled_from([0.0, 0.5, 40.0]),
)
def test_the_price_follows_as_a_pace_does(costs, cap, pause_s):
    """Money and Pace, which `weft.tokens.allocate` goes by, are the oracle."""
    shadow, window, now, spent, price = ShadowPrices(), parse_window(3600), 1e9, 0, 1.0
    for number, cost in enumerate(costs):
        left, spent, at = max(0, cap - spent), spent + cost, now + number * pause_s
        own = Account(node="a", unit="usd", window=window, cap=cap, spent=spent)
        shadow.settled([own], [Money(cost)], at)
        seen_s = 600.0 * -math.expm1(-max(at - now, 1.0) / 600.0)
        calls = sum(math.exp(-pause_s * ago / 600.0) for ago in range(number + 1))
        expected = max(1, round(calls / seen_s * 3600))
        pace = Pace(
            left=Money(left), tasks_left=expected, price=price, rate=1.0 / math.sqrt(expected)
        )
        price = min(max(pace_update(pace, Money(min(cost, left))).price, 1e-3), 1e3)
        assert shadow.price([own]) == pytest.approx(price, rel=1e-6)


@pytest.mark.parametrize(
    ("window", "left"),
    [("hourly", 3600 - 10), ("daily", 86400 - 10), ("monthly", 29 * 86400 - 10), (600, 600)],
)
def test_windows_say_how_long_they_last(window, left):
    at = 1_706_745_610.0  # ten seconds into February 2024
    assert window_left(Cap.of(usd(1), window).window, at) == left
