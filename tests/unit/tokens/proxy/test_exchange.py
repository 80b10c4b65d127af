import asyncio
import json

import openai
import pytest
from yarl import URL

from tests.unit.tokens.proxy.scripted import (
    CHAT,
    KEY,
    SPENT_NANO,
    UPSTREAM_KEY,
    USAGE,
    WORDS,
    Provider,
    calls,
    completion,
    event,
    place,
    stream,
)
from weft.tokens import Money, Status, Usage
from weft.tokens.budgets import Budget

EXACT = Usage.of(fresh=5, cache_read=4, text=5, reasoning=2)


def client(own, key="sk-test", retries=0):
    return openai.AsyncOpenAI(base_url=f"{own.url}/v1", api_key=key, max_retries=retries)


def test_a_chat_is_reserved_forwarded_settled_and_booked(tmp_path):
    async def run():
        async with place(tmp_path, Provider()) as own:
            async with client(own) as asking:
                raw = await asking.chat.completions.with_raw_response.create(
                    **CHAT, extra_headers={"x-weft-task": "t-1", "x-weft-agent": "coder"}
                )
            answer, headers = raw.parse(), raw.headers
            assert answer.choices[0].message.content == "".join(WORDS)
            assert answer.usage.total_tokens == 16
            assert headers["x-weft-spent"] == "0.000035 usd"
            assert headers["x-weft-left"] == "0.999965 usd"
            assert 0.5 < float(headers["x-weft-price"]) < 2
            assert headers["x-request-id"] == "r-1" and "set-cookie" not in headers
            path, sent, body = own.provider.seen[0]
            assert path == "/v1/chat/completions"
            assert sent["authorization"] == f"Bearer {UPSTREAM_KEY}"
            assert "sk-test" not in str(own.provider.seen)
            assert body == {**CHAT, "max_completion_tokens": 1000}
            standing = await own.standing()
            assert standing.spent == Money(SPENT_NANO) and not standing.held.nano

    asyncio.run(run())
    (call,), bad = calls(tmp_path)
    assert call.usage == EXACT and not bad
    assert (call.payer, call.agent, call.task) == ("team/a", "coder", "t-1")
    assert (call.source, call.status, call.model) == ("weft", Status.DONE, "known")
    assert call.labels == {"answer": "chatcmpl-1"}
    Budget.open(tmp_path / "budgets.db").verify()


@pytest.mark.parametrize("wants", [False, True])
def test_a_stream_comes_as_it_is_with_usage_only_for_who_asked(wants, tmp_path):
    options = {"stream_options": {"include_usage": True}} if wants else {}

    async def run():
        async with place(tmp_path, Provider(stream())) as own:
            async with client(own) as asking:
                pieces = await asking.chat.completions.create(**CHAT, stream=True, **options)
                found = [piece async for piece in pieces]
            words = [p.choices[0].delta.content for p in found if p.choices]
            assert "".join(filter(None, words)) == "".join(WORDS)
            assert [p.usage.total_tokens for p in found if p.usage] == [16] * wants
            assert own.provider.seen[0][2]["stream_options"] == {"include_usage": True}
            _, _, raw = await own.post({**CHAT, "stream": True, **options})
            assert raw == b"".join(stream() if wants else stream(usage=None))
            assert (await own.standing()).spent == Money(2 * SPENT_NANO)

    asyncio.run(run())
    found, bad = calls(tmp_path)
    assert [call.usage for call in found] == [EXACT] * 2 and not bad


RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "known",
    "status": "completed",
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "output": [
        {
            "type": "message",
            "id": "m",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "".join(WORDS), "annotations": []}],
        }
    ],
    "usage": {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 16,
    },
}


def test_responses_are_metered_in_one_piece_and_as_streams(tmp_path):
    delta = {"type": "response.output_text.delta", "delta": "Once", "sequence_number": 1}
    where = {"item_id": "m", "output_index": 0, "content_index": 0, "logprobs": []}
    last = {"type": "response.completed", "response": RESPONSE, "sequence_number": 2}

    async def run():
        async with place(tmp_path, Provider(RESPONSE)) as own, client(own) as asking:
            one = await asking.responses.create(model="known", input="hello")
            assert one.output_text == "".join(WORDS)
            assert own.provider.seen[0][2]["max_output_tokens"] == 1000
            own.provider.reply = [event({**delta, **where}), event(last)]
            pieces = await asking.responses.create(
                model="known", input="hello", stream=True, max_output_tokens=50
            )
            kinds = [piece.type async for piece in pieces]
            assert kinds == [delta["type"], last["type"]]
            assert own.provider.seen[1][2]["max_output_tokens"] == 50
            assert (await own.standing()).spent == Money(2 * SPENT_NANO)

    asyncio.run(run())
    found, bad = calls(tmp_path)
    assert [call.usage for call in found] == [EXACT] * 2 and not bad


def test_models_are_passed_through_and_nothing_else_is(tmp_path):
    models = {"object": "list", "data": [{"id": "known", "object": "model", "created": 1}]}

    async def run():
        async with place(tmp_path, Provider(models)) as own, client(own) as asking:
            assert [model.id async for model in asking.models.list()] == ["known"]
            for path in ("/v1/embeddings", "/v1/completions", "/v1/chat/completions/x"):
                status, _, body = await own.post(path=path)
                assert (status, json.loads(body)["error"]["code"]) == (404, "unknown_url")
            assert (await own.get("/v1/models", key="sk-other"))[0] == 401
            assert len(own.provider.seen) == 1

    asyncio.run(run())


def test_the_providers_key_goes_nowhere_but_to_models_and_calls(tmp_path):
    ways = ("../files", "%2e%2e/files", "..%2ffiles", "a/%2e%2e/%2e%2e/files", "%252e%252e/files")
    odd = ("x%3fafter=1", "x%23", "x%20HTTP/1.1", "x%0d%0ahost:y", "a//b", "", "x%5c..%5cfiles")

    async def run():
        async with place(tmp_path, Provider({"id": "known"})) as own:
            headers = {"authorization": f"Bearer {KEY}"}
            for way in (*ways, *odd):
                address = URL(f"{own.url}/v1/models/{way}", encoded=True)
                async with own.session.get(address, headers=headers) as reply:
                    assert (reply.status, (await reply.json())["error"]["code"]) == (
                        404,
                        "unknown_url",
                    ), way
            assert own.provider.seen == []
            for name in ("gpt-4.1", "meta-llama/Llama-3.1-8B", "ft:gpt-4o:a::b", "@cf/x@1.0"):
                assert (await own.get(f"/v1/models/{name}"))[0] == 200
                assert own.provider.seen.pop()[0] == f"/v1/models/{name}"

    asyncio.run(run())


def test_a_length_that_cannot_be_counted_is_a_wrong_request_and_no_trouble(tmp_path):
    async def run():
        async with place(tmp_path, Provider()) as own:
            for key in (KEY, "sk-counted"):
                status, headers, body = await own.post({**CHAT, "max_tokens": 10**30}, key=key)
                assert (status, headers["x-should-retry"]) == (400, "false")
                assert json.loads(body)["error"]["code"] == "invalid_request"
            assert (await own.get("/healthz"))[0] == 200

    asyncio.run(run())


def test_who_has_no_key_spends_nothing(tmp_path):
    async def run():
        async with place(tmp_path, Provider()) as own:
            async with client(own, key="sk-other") as asking:
                with pytest.raises(openai.AuthenticationError, match="not known"):
                    await asking.chat.completions.create(**CHAT)
            async with own.session.post(own.url + "/v1/chat/completions", json=CHAT) as reply:
                assert reply.status == 401
            assert own.provider.seen == []

    asyncio.run(run())


def test_what_is_left_of_capped_calls_is_less_by_the_call_itself(tmp_path):
    budgets = "cap: [1 usd daily, 7 calls hourly]\nkeys: {sk-test: a}\nnodes: {a: {cap: 1 usd}}\n"

    async def run():
        async with place(tmp_path, Provider(), budgets=budgets) as own, client(own) as asking:
            for left in ("6 calls, 0.999965 usd", "5 calls, 0.99993 usd"):
                raw = await asking.chat.completions.with_raw_response.create(**CHAT)
                assert raw.headers["x-weft-left"] == left

    asyncio.run(run())


def test_a_refusal_is_an_error_of_openais_that_says_what_is_left(tmp_path):
    async def run():
        async with place(tmp_path, Provider()) as own:
            async with client(own, key="sk-poor", retries=2) as asking:
                with pytest.raises(openai.RateLimitError) as caught:
                    await asking.chat.completions.create(**CHAT)
            error = caught.value.body
            assert (error["code"], error["type"]) == ("budget_exceeded", "insufficient_quota")
            assert error["node"] == "team/poor" and "left of 0.0000001 usd" in error["need"]
            assert "0.0000001 usd left" in error["got"] and "cap" in error["hint"]
            assert "waiting does not help" in error["hint"]
            assert caught.value.response.headers["x-should-retry"] == "false"
            metrics = (await own.get("/metrics"))[2].decode()
            assert 'weft_refused_total{code="budget_exceeded"} 1\n' in metrics
            assert own.provider.seen == []

    asyncio.run(run())


def test_caps_on_calls_and_tokens_need_no_price(tmp_path):
    async def run():
        async with place(tmp_path, Provider()) as own:
            for _ in range(3):
                status, _, _ = await own.post({**CHAT, "model": "odd"}, key="sk-counted")
                # Money is capped above, so that a price is asked for.
                assert status == 400

    asyncio.run(run())
    budgets = "cap: [100000 tokens, 3 calls]\nkeys: {sk-test: ''}"

    async def again():
        async with place(tmp_path, Provider(), budgets=budgets, where="other.db") as own:
            statuses = []
            for _ in range(4):
                status, headers, _ = await own.post({**CHAT, "model": "odd"})
                statuses.append(status)
                if status == 200:
                    assert headers["x-weft-spent"] == "16 tokens"
            assert statuses == [200, 200, 200, 429]
            assert (await own.standing("")).spent.nano == 48 * 10**9

    asyncio.run(again())


@pytest.mark.parametrize("where", ["budgets.db", ":memory:"])
def test_many_at_once_never_spend_more_than_the_cap(where, tmp_path):
    """A provider that always bills all that it was allowed, and knows what that was in all."""
    billed = []

    async def bill(provider, body, receive, send):
        tokens = body["max_completion_tokens"]
        billed.append(9 * 1000 + tokens * 4000)
        await asyncio.sleep(0.01)
        return completion(
            usage={"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": 9 + tokens}
        )

    # Of 80 calls that may cost 5 thousandths each, a few fit.
    budgets = "cap: 0.03 usd\nkeys: {sk-test: ''}"

    async def run():
        async with place(tmp_path, Provider(bill), budgets=budgets, where=where) as own:
            done = await asyncio.gather(*(own.post() for _ in range(80)))
            statuses = [status for status, _, _ in done]
            assert set(statuses) == {200, 429} and len(billed) == statuses.count(200)
            standing = await own.standing("")
            assert standing.spent.nano == sum(billed) <= 30_000_000
            await own.proxy.house.desk.ask(lambda budget: budget.verify())

    asyncio.run(run())
    assert len(calls(tmp_path)[0]) == len(billed)


def test_the_end_of_a_budget_is_used_with_shorter_answers(tmp_path):
    async def run():
        budgets = "cap: 0.0045 usd\nkeys: {sk-test: ''}"
        async with place(tmp_path, Provider(), budgets=budgets) as own:
            # Once answers are known to be short, less than the longest is enough to go ahead.
            for _ in range(99):
                own.proxy.house.tariff.outputs.observe("known", "", 7)
            status, headers, _ = await own.post()
            assert status == 200
            limit = own.provider.seen[0][2]["max_completion_tokens"]
            assert 7 <= limit < 1000 and headers["x-weft-max-tokens"] == str(limit)

    asyncio.run(run())


def test_a_retry_under_the_same_key_is_made_once(tmp_path):
    async def run():
        async with place(tmp_path, Provider()) as own:
            first = await own.post(Idempotency_Key="k")
            again = await own.post(Idempotency_Key="k")
            assert first[2] == again[2] and again[1]["x-weft-again"] == "true"
            assert again[1]["x-weft-spent"] == first[1]["x-weft-spent"]
            other = await own.post({**CHAT, "n": 1}, Idempotency_Key="k")
            assert (other[0], len(own.provider.seen)) == (422, 1)

            async def wait(provider, body, receive, send):
                await provider.goes_on.wait()
                return completion()

            own.provider.reply = wait
            slow = asyncio.create_task(own.post(Idempotency_Key="slow"))
            while len(own.provider.seen) < 2:
                await asyncio.sleep(0.005)
            assert (await own.post(Idempotency_Key="slow"))[0] == 409
            own.provider.goes_on.set()
            assert (await slow)[0] == 200
            assert (await own.standing()).spent == Money(2 * SPENT_NANO)
            # What failed may be tried again.
            own.provider.reply, own.provider.status = {"error": {"code": "x"}}, 500
            assert (await own.post(Idempotency_Key="f"))[0] == 500
            own.provider.reply, own.provider.status = completion(), 200
            assert (await own.post(Idempotency_Key="f"))[0] == 200

    asyncio.run(run())
    found, _ = calls(tmp_path)
    assert [call.status for call in found].count(Status.DONE) == 3 and len(found) == 4


def test_ids_that_a_provider_uses_twice_are_two_calls(tmp_path):
    async def run():
        async with place(tmp_path, Provider()) as own:
            await own.post()
            await own.post()
            assert (await own.standing()).spent == Money(2 * SPENT_NANO)

    asyncio.run(run())
    found, _ = calls(tmp_path)
    assert [call.labels["answer"] for call in found] == ["chatcmpl-1"] * 2


@pytest.mark.parametrize("options", [{"durable": True}, {"ledger": None}])
def test_ends_that_wait_to_be_kept_are_settled_when_they_are_seen(options, tmp_path):
    async def run():
        async with place(tmp_path, Provider(), **options) as own:
            assert (await own.post())[0] == 200
            found = await own.proxy.house.desk.ask(lambda budget: budget.standing("team/a"))
            assert found[-1].spent == Money(SPENT_NANO) and not found[-1].flying
            if options.get("durable"):
                assert len(calls(tmp_path)[0]) == 1

    asyncio.run(run())


def test_what_was_billed_by_another_tier_costs_that(tmp_path):
    async def run():
        async with place(tmp_path, Provider(completion(service_tier="default"))) as own:
            assert (await own.post())[1]["x-weft-spent"] == "0.000035 usd"

    asyncio.run(run())
    assert USAGE["total_tokens"] == 16
