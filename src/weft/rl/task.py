"""What a policy is trained for: a model, prompts, and how an answer is rewarded.

A recipe is a function that returns a task; engines (TRL, Ray, one process) run it. The task knows
nothing of staleness, of processes, or of how gradients are changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weft.core.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Prompt", "Task"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One question.

    Attributes:
        text: what the model reads.
        key: what the reward needs to know of it, such as the right answer; plain data.
    """

    text: str
    key: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task of reinforcement learning with rewards that can be computed.

    Attributes:
        name: what reports call it.
        make_model: a causal language model of transformers, with the weights that training begins
            from. Called once in each process; it has to give the same weights each time.
        make_tokenizer: its tokenizer, with end and padding tokens.
        prompts: prompts by number: `prompts(first, count)` gives those from `first` on, the same
            ones each time it is asked.
        reward: of a prompt and the text that was answered, in any bounds.
        new_tokens: the longest answer [tokens].
        group: answers to each prompt; advantages are taken within a group.
        groups_per_step: prompts in a step of training.
        learning_rate: of AdamW, where none is asked for.
        clip_norm: what gradients are clipped to.

    Raises:
        InputError: a number out of range.
    """

    name: str
    make_model: Callable[[], PreTrainedModel]
    make_tokenizer: Callable[[], PreTrainedTokenizerBase]
    prompts: Callable[[int, int], Sequence[Prompt]]
    reward: Callable[[Prompt, str], float]
    new_tokens: int
    group: int = 8
    groups_per_step: int = 16
    learning_rate: float = 1e-3
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        if min(self.new_tokens, self.groups_per_step) < 1 or self.group < 2:
            raise InputError(
                need="at least one new token and one group a step, of at least two answers",
                got=f"new_tokens={self.new_tokens}, groups_per_step={self.groups_per_step},"
                f" group={self.group}",
                hint="advantages are differences within a group",
            )
        if not (self.learning_rate > 0.0 and self.clip_norm > 0.0):
            raise InputError(
                need="a learning rate and a norm above 0",
                got=f"learning_rate={self.learning_rate}, clip_norm={self.clip_norm}",
                hint="learning_rate=1e-3, clip_norm=1.0",
            )
