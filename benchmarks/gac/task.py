"""Tasks over digits with answers that are right or wrong: reverse them, sort them, add them.

Prompts are digits and a sign for "answer"; answers have a fixed length, and their reward is 1 where
every character is right. Base policies are trained on right answers until they give a certain
share of them, and then learn from rewards alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.gac.policy import Policy

__all__ = ["ASK", "PLUS", "TASKS", "Task", "warm_up"]

ASK = 11
"""The character after which the answer begins."""

PLUS = 12
"""Between two numbers that are to be added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Questions and right answers.

    Attributes:
        draw: `draw(count, rng)` gives prompts [count, T] and answers [count, answer].
        answer: how many characters an answer has.
    """

    draw: Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
    answer: int


def _reverse(digits: int) -> Task:
    def draw(count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        found = torch.randint(0, 10, (count, digits), generator=rng)
        return _ask(found), found.flip(1)

    return Task(draw=draw, answer=digits)


def _sort(digits: int) -> Task:
    def draw(count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        found = torch.randint(0, 10, (count, digits), generator=rng)
        return _ask(found), found.sort(1).values

    return Task(draw=draw, answer=digits)


def _add(digits: int) -> Task:
    """Sums of two numbers, lowest digit first on both sides."""

    def draw(count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        found = torch.randint(0, 10, (count, 2 * digits), generator=rng)
        left, right = found.chunk(2, 1)
        scale = 10 ** torch.arange(digits + 1)
        total = (left * scale[:-1]).sum(1) + (right * scale[:-1]).sum(1)
        sums = total[:, None] // scale % 10
        plus = torch.full((count, 1), PLUS)
        return _ask(torch.cat([left, plus, right], 1)), sums

    return Task(draw=draw, answer=digits + 1)


TASKS: Mapping[str, Task] = {
    "reverse 3": _reverse(3),
    "reverse 5": _reverse(5),
    "sort 4": _sort(4),
    "add 2": _add(2),
}
"""By the names that settings use."""


def warm_up(
    policy: Policy, task: Task, *, reach: float, seed: int, limit: int = 20000
) -> tuple[Tensor, float, int]:
    """Weights of a policy that answers about a share `reach` of questions right.

    Returns:
        The weights, the share of right answers among 4,096 drawn from it, and steps taken.

    Raises:
        RuntimeError: it was not reached within `limit` steps.
    """
    rng = torch.Generator().manual_seed(seed)
    weights = policy.initial(rng).requires_grad_()
    optimizer = torch.optim.Adam([weights], lr=1e-3)
    for step in range(limit):
        prompts, right = task.draw(256, rng)
        logits = policy.logits(weights, prompts, right)
        optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), right.flatten()).backward()
        optimizer.step()
        if step % 5 == 4:
            share = _measure(policy, task, weights.detach(), rng)
            if share >= reach:
                return weights.detach(), share, step + 1
    raise RuntimeError(f"{limit} steps were not enough for a share of {reach}")


def _measure(policy: Policy, task: Task, weights: Tensor, rng: torch.Generator) -> float:
    prompts, right = task.draw(1024, rng)
    answers, _, _ = policy.sample(weights, prompts, group=1, count=task.answer, rng=rng)
    return (answers == right).all(1).double().mean().item()


def _ask(digits: Tensor) -> Tensor:
    return torch.cat([digits, torch.full((len(digits), 1), ASK)], 1)
