"""What a policy is trained for: a model, prompts, and how an answer is rewarded.

A recipe is a function that returns a task; engines (TRL, Ray, one process) run it. The task knows
nothing of staleness, of processes, or of how gradients are changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from torch import nn

from weft.core.errors import InputError
from weft.core.functions import require_functions

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from weft.rl.weights import Weights

__all__ = ["Answer", "Prompt", "Sampler", "Task"]

_FUNCTIONS = {
    "make_model": "lambda: AutoModelForCausalLM.from_pretrained(...)",
    "make_tokenizer": "lambda: AutoTokenizer.from_pretrained(...)",
    "prompts": "lambda first, count: [own[n % len(own)] for n in range(first, first + count)]",
    "reward": "lambda prompt, text: float(text == prompt.key)",
}
"""What has to be functions, and what one may look like."""


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
class Answer:
    """What was drawn.

    Attributes:
        prompt: tokens of the prompt.
        tokens: tokens of the answer, an end token included where one was drawn.
        log_probs: of these tokens, under the distribution that they were drawn from.
        text: the answer in words, without special tokens.
    """

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    text: str


class Sampler(Protocol):
    """Draws answers with the weights that it was given last: a model, or a client of a server.

    What a server has to give back is the log-probability of each token *under the distribution
    that it was drawn from*: after temperature, without top-k or top-p (which set probabilities to 0
    that training gives mass to), and with the weights of one version from the first token to the
    last.
    """

    def load(self, weights: Weights) -> None:
        """Use these weights from now on."""
        ...

    def sample(self, prompts: Sequence[Prompt], *, count: int, seed: int) -> list[list[Answer]]:
        """Draw `count` answers to each prompt; the same ones for the same seed and weights."""
        ...


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
        temperature: what logits are divided by, when answers are drawn and when they are learnt
            from: probabilities of a policy are those that it draws with.
        make_sampler: what draws answers in place of the model itself, such as a client of an
            inference server; called once in each process that makes samples.

    Raises:
        InputError: a number out of range, or a value where a function is wanted.
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
    temperature: float = 1.0
    make_sampler: Callable[[], Sampler] | None = None

    def __post_init__(self) -> None:
        require_functions(self, _FUNCTIONS, unlike=nn.Module)
        if min(self.new_tokens, self.groups_per_step) < 1 or self.group < 2:
            raise InputError(
                need="at least one new token and one group a step, of at least two answers",
                got=f"new_tokens={self.new_tokens}, groups_per_step={self.groups_per_step},"
                f" group={self.group}",
                hint="advantages are differences within a group",
            )
        finite = (self.learning_rate, self.temperature)
        if not (all(0.0 < one < inf for one in finite) and self.clip_norm > 0.0):
            raise InputError(
                need="a learning rate, a norm and a temperature above 0",
                got=f"learning_rate={self.learning_rate}, clip_norm={self.clip_norm},"
                f" temperature={self.temperature}",
                hint="learning_rate=1e-3, clip_norm=1.0, temperature=1.0",
            )
