"""Drawing answers from a policy.

    answers = ModelSampler(task).sample(prompts, count=8, seed=1)

Knows models of transformers and tasks; `Sampler` in `weft.rl.task` is the seam for others.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from weft.core.errors import InputError, RunError
from weft.rl.rollout import Rollout, left_padded
from weft.rl.task import Answer, Prompt, Sampler, Task
from weft.rl.weights import Weights, load_weights

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

__all__ = [
    "ModelSampler",
    "draw",
    "make_sampler",
    "padding_of",
    "placed",
    "roll",
    "seed_of",
    "usable_device",
]


class ModelSampler:
    """Draws from the task's own model, in this process.

    Args:
        task: gives model and tokenizer.
        device: where the model runs.
    """

    def __init__(self, task: Task, *, device: torch.device | str = "cpu") -> None:
        self._task = task
        self._device = torch.device(device)
        self._model = placed(task, device)
        self._tokenizer = task.make_tokenizer()
        self._pad = padding_of(self._tokenizer)
        self._ends = {int(str(self._tokenizer.eos_token_id))}

    def load(self, weights: Weights) -> None:
        """Use these weights from now on."""
        load_weights(self._model, weights)

    def sample(self, prompts: Sequence[Prompt], *, count: int, seed: int) -> list[list[Answer]]:
        """Draw `count` answers to each prompt."""
        asked = [tuple(self._tokenizer(prompt.text)["input_ids"]) for prompt in prompts]
        if not all(asked):
            raise InputError(
                need="prompts of at least one token",
                got=f"{prompts[asked.index(())].text!r}, of which the tokenizer makes none",
                hint="begin each prompt with a token that the tokenizer knows",
            )
        generator = torch.Generator(self._device).manual_seed(seed)
        drawn, log_probs = draw(
            self._model,
            asked,
            count=count,
            new_tokens=self._task.new_tokens,
            ends=self._ends,
            pad=self._pad,
            temperature=self._task.temperature,
            generator=generator,
        )
        rows = [
            _until_end(tokens, values, self._ends)
            for tokens, values in zip(drawn.tolist(), log_probs.tolist(), strict=True)
        ]
        texts = self._tokenizer.batch_decode(
            [list(row[0]) for row in rows], skip_special_tokens=True
        )
        answers = [
            Answer(prompt=asked[at // count], tokens=tokens, log_probs=values, text=text)
            for at, ((tokens, values), text) in enumerate(zip(rows, texts, strict=True))
        ]
        return [answers[at : at + count] for at in range(0, len(answers), count)]


@torch.no_grad()
def draw(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    count: int,
    new_tokens: int,
    ends: Collection[int],
    pad: int,
    temperature: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Tokens and their log-probabilities, drawn one after the other with cached keys and values.

    A prompt is read once for all of its answers. Ends early where all answers have ended; what
    stands behind an end means nothing.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        prompts: tokens of each.
        count: answers to each prompt, which stay next to each other.
        new_tokens: the longest answer.
        ends: tokens that end an answer.
        pad: a token for places that do not count.
        temperature: what logits are divided by.
        generator: where chance comes from; on the model's device.

    Returns:
        Tokens and log-probabilities [prompts * count, T], T at most `new_tokens`.

    Raises:
        RunError: logits are not finite.
    """
    ids, attention, positions = left_padded(prompts, pad, model.device)
    cache, logits = _read(model, ids, attention, positions)
    logits = logits.repeat_interleave(count, 0)
    cache.batch_repeat_interleave(count)
    if attention is not None and positions is not None:
        attention = attention.repeat_interleave(count, 0)
        positions = positions[:, -1:].repeat_interleave(count, 0)
    stops = torch.tensor(sorted(ends), device=model.device)
    alive = torch.ones(len(logits), 1, dtype=torch.bool, device=model.device)
    tokens: list[Tensor] = []
    log_probs: list[Tensor] = []
    while True:
        spread = torch.log_softmax(logits.float() / temperature, -1)
        tokens.append(torch.multinomial(spread.exp(), 1, generator=generator))
        log_probs.append(spread.gather(1, tokens[-1]))
        alive = alive & ~torch.isin(tokens[-1], stops)
        if len(tokens) == new_tokens or not alive.any():
            return torch.cat(tokens, 1), torch.cat(log_probs, 1)
        if attention is not None and positions is not None:
            attention = torch.cat((attention, torch.ones_like(attention[:, :1])), 1)
            positions = positions + 1
        logits = model(
            input_ids=tokens[-1],
            attention_mask=attention,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]


def _read(
    model: PreTrainedModel, ids: Tensor, attention: Tensor | None, positions: Tensor | None
) -> tuple[Cache, Tensor]:
    """What prompts leave in the cache, and logits of what comes next [prompts, vocabulary]."""
    read = model(
        input_ids=ids,
        attention_mask=attention,
        position_ids=positions,
        use_cache=True,
        logits_to_keep=1,
    )
    if not read.logits.isfinite().all():  # drawing from these would stop the device, or worse
        raise RunError(
            need="weights whose logits are finite",
            got="NaN or infinity at the end of a prompt",
            hint="training has run away: a lower learning rate, or a correction that bounds ratios",
        )
    return read.past_key_values, read.logits[:, -1]


def roll(
    task: Task,
    sampler: Sampler,
    numbers: Sequence[int],
    *,
    version: int,
    seed: int,
) -> tuple[tuple[Rollout, ...], ...]:
    """Answers to prompts with their rewards, a group for each prompt.

    Args:
        task: gives prompts and rewards.
        sampler: draws, with the weights of `version`.
        numbers: of the prompts.
        version: of the sampler's weights.
        seed: of the run; what is drawn depends on it, on the numbers and on the weights.

    Raises:
        InputError: the task has no such prompt, the sampler gave another number of answers, or a
            reward is no number or not finite.
    """
    prompts = [_prompt(task, number) for number in numbers]
    found = sampler.sample(prompts, count=task.group, seed=seed_of(seed, *numbers))
    sizes = [len(group) for group in found]
    if sizes != [task.group] * len(prompts):
        raise InputError(
            need=f"{task.group} answers to each of {len(prompts)} prompts",
            got=f"{sizes}",
            hint="a sampler gives `count` answers to each prompt, in their order",
        )
    return tuple(
        tuple(
            Rollout(
                number=number,
                prompt=answer.prompt,
                tokens=answer.tokens,
                log_probs=answer.log_probs,
                reward=_reward(task, prompt, answer.text),
                version=version,
            )
            for answer in answers
        )
        for number, prompt, answers in zip(numbers, prompts, found, strict=True)
    )


def _prompt(task: Task, number: int) -> Prompt:
    found = task.prompts(number, 1)
    if len(found) != 1:
        raise InputError(
            need=f"one prompt from prompts({number}, 1)",
            got=f"{len(found)}",
            hint="numbers go on for as long as a run does: begin again where a data set ends",
        )
    return found[0]


def _reward(task: Task, prompt: Prompt, text: str) -> float:
    found: object = task.reward(prompt, text)
    try:
        return float(found)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise InputError(
            need="a number from the task's reward",
            got=f"{found!r} for {text!r}, in answer to {prompt.text!r}",
            hint="return 0.0 for what is worth nothing, such as an answer that cannot be read",
        ) from error


def usable_device(text: str) -> torch.device:
    """A device on which there is room for a number, at least.

    Raises:
        InputError: there is no such device, or it holds no numbers.

    Example:
        >>> usable_device("cpu").type
        'cpu'
    """
    try:
        device = torch.device(text)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            need="a device of this machine",
            got=f"{text}: {str(error).splitlines()[0]}",
            hint="cpu, or cuda where torch finds a GPU",
        ) from error
    return device


def seed_of(*numbers: int) -> int:
    """A seed that differs for different numbers in a way that says nothing about them.

    Example:
        >>> seed_of(0, 1) != seed_of(1, 0), seed_of(3) == seed_of(3)
        (True, True)
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def placed(task: Task, device: torch.device | str) -> PreTrainedModel:
    """The model of a task on a device, in evaluation mode: nothing in it is left to chance."""
    model = task.make_model()
    nn.Module.to(model, device)
    return model.eval()


def padding_of(tokenizer: object) -> int:
    """The padding token of a tokenizer.

    Raises:
        InputError: it lacks one, or an end token.
    """
    pad = getattr(tokenizer, "pad_token_id", None)
    if pad is None or getattr(tokenizer, "eos_token_id", None) is None:
        raise InputError(
            need="a tokenizer with an end token and a padding token",
            got=f"{type(tokenizer).__name__} without one of them",
            hint="tokenizer.pad_token = tokenizer.eos_token is usual where there is none",
        )
    return int(pad)


def make_sampler(task: Task, *, device: torch.device | str = "cpu") -> Sampler:
    """The sampler that a task asks for; else one of its model."""
    if task.make_sampler is None:
        return ModelSampler(task, device=device)
    return task.make_sampler()


def _until_end(
    tokens: list[int], log_probs: list[float], ends: Collection[int]
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    length = next((at + 1 for at, token in enumerate(tokens) if token in ends), len(tokens))
    return tuple(tokens[:length]), tuple(log_probs[:length])
