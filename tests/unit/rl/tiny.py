"""A tiny language model of transformers, its tokenizer, and a task, for tests of engines."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from weft.rl.task import Prompt, Task

DIGITS = 4
LENGTH = 3


def make_model():
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=16,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    return Qwen2ForCausalLM(config)


def make_tokenizer():
    words = ["<pad>", "<end>", "=", *"0123456789", "<unk>"]
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<end>",
        pad_token="<pad>",
        unk_token="<unk>",
        chat_template="{{ messages[0]['content'] }}",
    )


def prompts(first, count):
    """Digits to be said in reverse; shorter ones in between, so that there is padding."""
    found = []
    for number in range(first, first + count):
        generator = torch.Generator().manual_seed(number)
        length = LENGTH - (number % 5 == 0)
        digits = torch.randint(DIGITS, (length,), generator=generator).tolist()
        text = "".join(map(str, digits))
        found.append(Prompt(text=text + "=", key=text[::-1]))
    return found


def reward(prompt, answer):
    """The share of digits that are right."""
    said = answer.replace(" ", "")
    right = sum(one == other for one, other in zip(said, prompt.key, strict=False))
    return right / len(prompt.key)


def make_task(**changes):
    options = {
        "name": "reverse",
        "make_model": make_model,
        "make_tokenizer": make_tokenizer,
        "prompts": prompts,
        "reward": reward,
        "new_tokens": LENGTH,
        "group": 4,
        "groups_per_step": 4,
        "learning_rate": 3e-3,
    }
    return Task(**{**options, **changes})
