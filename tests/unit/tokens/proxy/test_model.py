"""A real model behind a server in OpenAI's form, the proxy, and OpenAI's own client."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time

import openai
import pytest

from tests.unit.tokens.proxy.scripted import PRICES, Provider, calls, event, place
from weft.tokens import Count, Status
from weft.tokens.budgets import Budget

TEXT = "a budget says beforehand what is enough, and a ledger says afterwards what it was. " * 20


class Model(Provider):
    """A small Llama with random weights, and a tokenizer that was trained on the spot."""

    def __init__(self):
        super().__init__(self.answer)
        import torch
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import LlamaConfig, LlamaForCausalLM

        self.tokenizer = Tokenizer(models.BPE())
        self.tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet)
        self.tokenizer.train_from_iterator([TEXT], trainer)
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
        size = self.tokenizer.get_vocab_size()
        config = LlamaConfig(
            vocab_size=size, **sizes, **heads, pad_token_id=0, eos_token_id=None, bos_token_id=None
        )
        self.model = LlamaForCausalLM(config).eval()
        self.generated = []

    def prompt(self, messages):
        text = "".join(f"<{own['role']}>{own['content']}\n" for own in messages)
        return self.tokenizer.encode(text + "<assistant>").ids

    def generate(self, ids, limit):
        import torch

        with torch.no_grad():
            out = self.model.generate(
                torch.tensor([ids]), max_new_tokens=limit, do_sample=True, top_k=0
            )
        self.generated.append(out[0, len(ids) :].tolist())
        return self.generated[-1]

    async def answer(self, provider, body, receive, send):
        ids = self.prompt(body["messages"])
        new = await asyncio.to_thread(self.generate, ids, body["max_completion_tokens"])
        usage = {
            "prompt_tokens": len(ids),
            "completion_tokens": len(new),
            "total_tokens": len(ids) + len(new),
        }
        plain = {"id": "chatcmpl-tiny", "created": 1, "model": "known-tiny"}
        choice = {"index": 0, "finish_reason": "length"}
        if not body.get("stream"):
            message = {"role": "assistant", "content": self.tokenizer.decode(new)}
            choices = [{**choice, "message": message}]
            return {**plain, "object": "chat.completion", "choices": choices, "usage": usage}
        plain["object"] = "chat.completion.chunk"
        pieces = [
            event(
                {
                    **plain,
                    "choices": [
                        {
                            "index": 0,
                            "finish_reason": None,
                            "delta": {"content": self.tokenizer.decode([one])},
                        }
                    ],
                }
            )
            for one in new
        ]
        pieces.append(event({**plain, "choices": [{**choice, "delta": {}}]}))
        if body["stream_options"]["include_usage"]:
            pieces.append(event({**plain, "choices": [], "usage": usage}))
        return [*pieces, b"data: [DONE]\n\n"]


@pytest.mark.slow
def test_a_real_models_tokens_are_what_the_ledger_has(tmp_path):
    model = Model()
    messages = [{"role": "user", "content": "what is enough? \u00e9\u4e2d"}]

    async def run():
        async with (
            place(tmp_path, model, max_tokens=40) as own,
            openai.AsyncOpenAI(
                base_url=own.url + "/v1", api_key="sk-test", max_retries=0
            ) as asking,
        ):
            create = asking.chat.completions.create
            one = await create(model="known-tiny", messages=messages)
            assert one.choices[0].finish_reason == "length" and one.usage.completion_tokens == 40
            pieces = await create(
                model="known-tiny", messages=messages, stream=True, max_completion_tokens=17
            )
            text = [p.choices[0].delta.content or "" async for p in pieces]
            assert len(text) == 18
            with pytest.raises(openai.RateLimitError):
                await asking.with_options(api_key="sk-poor").chat.completions.create(
                    model="known-tiny", messages=messages
                )
            return (await own.standing()).spent.nano

    spent = asyncio.run(run())
    # The tokenizer is the oracle for what was read, the model's own ids for what was written.
    read = len(model.prompt(messages))
    assert [len(own) for own in model.generated] == [40, 17]
    found, bad = calls(tmp_path)
    assert [(own.usage.input, own.usage.output) for own in found] == [
        (Count(read, read), Count(40, 40)),
        (Count(read, read), Count(17, 17)),
    ]
    assert spent == 2 * read * 1000 + 57 * 4000 and not bad


def serve(folder, upstream, port):
    command = [sys.executable, "-m", "weft", "tokens", "serve", "--upstream", upstream]
    command += ["--budgets", "budgets.yaml", "--ledger", "ledger.db", "--prices", "prices.yaml"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    log = (folder / "serve.log").open("ab")
    with log:
        process = subprocess.Popen(
            [*command, "--port", str(port)], cwd=folder, env=env, stdout=log, stderr=log
        )
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        assert process.poll() is None, (folder / "serve.log").read_text()
        time.sleep(0.05)
    raise AssertionError("the proxy did not start")


@pytest.mark.slow
def test_kill_9_loses_no_answer_that_a_client_saw_the_end_of(tmp_path):
    """The command itself, killed under load, and started again; then told to stop."""
    from tests.unit.tokens.proxy.scripted import CHAT, running

    budgets = "cap: 1 usd\nkeys: {sk-test: ''}\n"
    (tmp_path / "budgets.yaml").write_text(budgets)
    (tmp_path / "prices.yaml").write_text(PRICES)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answered = []

    async def some(url):
        async with openai.AsyncOpenAI(base_url=url, api_key="sk-test", max_retries=0) as asking:
            while True:
                try:
                    raw = await asking.chat.completions.with_raw_response.create(**CHAT)
                except openai.APIConnectionError:
                    return
                answered.append(raw.headers["x-weft-call"])

    async def run():
        provider = Provider()
        async with running(provider) as upstream:
            process = await asyncio.to_thread(serve, tmp_path, upstream, port)
            clients = [asyncio.create_task(some(f"http://127.0.0.1:{port}/v1")) for _ in range(4)]
            while len(answered) < 60:
                await asyncio.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            await asyncio.gather(*clients)
            process.wait()
            process = await asyncio.to_thread(serve, tmp_path, upstream, port)
            await asyncio.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 30) in (0, -signal.SIGTERM, 143)
            return len(provider.seen)

    sent = asyncio.run(run())
    found, bad = calls(tmp_path)
    done = [own for own in found if own.status is Status.DONE]
    assert set(answered) <= {own.id for own in done} and not bad
    # Each call that was begun is there once, those in flight among them.
    assert len(done) <= sent <= len(found) == len({own.id for own in found})
    (standing,) = Budget.open(tmp_path / "budgets.db").standing()
    exact = sum(own.usage.is_exact for own in found)
    assert standing.spent.nano == 35_000 * exact and standing.flying == len(found) - exact
    Budget.open(tmp_path / "budgets.db").verify()
