"""Small tasks of reinforcement learning: digits in, digits out, by a policy that has half learnt.

A policy reads digits and "=", and writes as many digits. Its first weights come from a short
supervised training, the same in each process and each time, kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from weft.rl.task import Prompt, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

__all__ = ["Lesson", "make_task"]

DIGITS = "0123456789"
WORDS = {word: number for number, word in enumerate([*DIGITS, "=", "<pad>", "<end>", "<unk>"])}
VOCABULARY = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What is asked for, of whom, and how far it was taught before.

    Attributes:
        name: of the answer, as `ANSWERS` knows it.
        digits: in a prompt, and in an answer.
        width, layers: of the network.
        warm_up: supervised steps that it begins with.
    """

    name: str
    digits: int
    width: int
    layers: int
    warm_up: int


def _reversed(digits: str) -> str:
    return digits[::-1]


def _sorted(digits: str) -> str:
    return "".join(sorted(digits))


ANSWERS: dict[str, Callable[[str], str]] = {"reverse": _reversed, "sort": _sorted}


def make_task(lesson: Lesson, *, group: int, groups_per_step: int, learning_rate: float) -> Task:
    """A task whose reward is 1 for the right answer, and 0 for another."""
    return Task(
        name=f"{lesson.name} {lesson.digits} digits",
        make_model=partial(_model, lesson),
        make_tokenizer=_tokenizer,
        prompts=partial(_prompts, lesson),
        reward=_reward,
        new_tokens=lesson.digits,
        group=group,
        groups_per_step=groups_per_step,
        learning_rate=learning_rate,
    )


def _prompts(lesson: Lesson, first: int, count: int) -> Sequence[Prompt]:
    answer = ANSWERS[lesson.name]
    prompts: list[Prompt] = []
    for number in range(first, first + count):
        drawn = np.random.default_rng((1, number)).integers(10, size=lesson.digits)
        digits = "".join(map(str, drawn))
        prompts.append(Prompt(text=f"{digits}=", key=answer(digits)))
    return prompts


def _reward(prompt: Prompt, answer: str) -> float:
    return float(answer.replace(" ", "") == prompt.key)


def _tokenizer() -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel(WORDS, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")  # pyright: ignore[reportAttributeAccessIssue]
    words.decoder = decoders.Fuse()  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        eos_token="<end>",
        pad_token="<pad>",
        unk_token="<unk>",
        chat_template="{{messages[0]['content']}}",
    )


def _blank(lesson: Lesson) -> Qwen2ForCausalLM:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=lesson.width,
        intermediate_size=2 * lesson.width,
        num_hidden_layers=lesson.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=WORDS["<end>"],
        pad_token_id=WORDS["<pad>"],
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return Qwen2ForCausalLM(config)


def _model(lesson: Lesson) -> Qwen2ForCausalLM:
    model = _blank(lesson)
    kept = _cache(lesson)
    if kept.is_file():
        model.load_state_dict(torch.load(kept, weights_only=True))
        return model
    _teach(model, lesson)
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial_file = kept.with_name(f"{kept.name}.{os.getpid()}")
    torch.save(model.state_dict(), partial_file)
    partial_file.replace(kept)  # of several processes that begin at once, each writes the same
    return model


def _cache(lesson: Lesson) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    # What was taught depends on this file and on torch's arithmetic.
    taught = repr((astuple(lesson), torch.__version__, Path(__file__).read_text()))
    digest = hashlib.sha256(taught.encode()).hexdigest()[:12]
    return Path(base) / "weft" / f"rl_{lesson.name}_{digest}.pt"


def _teach(model: Qwen2ForCausalLM, lesson: Lesson) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums come out the same wherever it is taught
    try:
        for step in range(lesson.warm_up):
            ids = _lesson(lesson, step)
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits[:, lesson.digits :]
            wanted = ids[:, lesson.digits + 1 :]
            loss = F.cross_entropy(logits.reshape(-1, VOCABULARY), wanted.reshape(-1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    finally:
        torch.set_num_threads(threads)


def _lesson(lesson: Lesson, step: int) -> Tensor:
    answer = ANSWERS[lesson.name]
    drawn = np.random.default_rng((2, step)).integers(10, size=(256, lesson.digits))
    rows: list[list[int]] = []
    for row in drawn:
        digits = "".join(map(str, row))
        rows.append([WORDS[word] for word in f"{digits}={answer(digits)}"])
    return torch.tensor(rows)
