"""A small task whose prompts and answers differ in length; also a recipe for processes."""

from __future__ import annotations

import os
import time

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from weft.rl.learner import Learner, Method
from weft.rl.task import Prompt, Task

WORDS = {word: n for n, word in enumerate([*"0123456789=", "<pad>", "<end>", "<unk>"])}
END, PAD = WORDS["<end>"], WORDS["<pad>"]


def make_model():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=len(WORDS),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                max_position_embeddings=32,
                bos_token_id=None,
                eos_token_id=END,
                pad_token_id=PAD,
            )
        )
        with torch.no_grad():  # far enough from uniform that a wrong position shows
            for parameter in model.parameters():
                parameter.mul_(4.0)
    return model


def make_tokenizer():
    words = Tokenizer(models.WordLevel(WORDS, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<end>", pad_token="<pad>", unk_token="<unk>"
    )


def prompts(first, count):
    return [Prompt(text=f"{number}=", key=number % 10) for number in range(first, first + count)]


def reward(prompt, answer):
    """The share of even digits: something that a policy without lessons learns at once."""
    digits = [int(word) for word in answer if word.isdecimal()]
    return sum(digit % 2 == 0 for digit in digits) / 4


def task(**changes):
    fields = {
        "name": "small",
        "make_model": make_model,
        "make_tokenizer": make_tokenizer,
        "prompts": prompts,
        "reward": reward,
        "new_tokens": 4,
        "group": 4,
        "groups_per_step": 4,
        "learning_rate": 3e-3,
    }
    return Task(**{**fields, **changes})


def learner(max_lag=4, given=None, **method):
    return Learner(given or task(), Method(**method), max_lag=max_lag)


# Recipes for processes.


def small():
    return task()


def slow():
    """Answers take long enough to be killed over."""

    def late(prompt, answer):
        time.sleep(0.01)
        return reward(prompt, answer)

    return task(reward=late)


def deadly():
    """Whoever makes samples dies of it."""

    def die(prompt, answer):
        os._exit(1)

    return task(reward=die)


def poisonous():
    """Whoever answers the sixth prompt dies of it."""

    def die(prompt, answer):
        if prompt.text == "5=":
            os._exit(1)
        return reward(prompt, answer)

    return task(reward=die)


def wrong():
    def fail(prompt, answer):
        raise ValueError("no such digit")

    return task(reward=fail)


def unbuilt():
    def fail():
        raise ValueError("no such model")

    return task(make_model=fail)


def number():
    return 3
