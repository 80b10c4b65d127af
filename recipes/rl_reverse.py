"""Reverse three digits: a task of reinforcement learning that takes a processor a minute."""

from __future__ import annotations

import rl_digits

from weft.rl.task import Task

__all__ = ["rl_reverse", "rl_reverse_six"]


def rl_reverse() -> Task:
    """11,456 weights that get two answers of five right; 64 prompts a step, 8 answers each."""
    lesson = rl_digits.Lesson(name="reverse", digits=3, width=32, layers=1, warm_up=142)
    return rl_digits.make_task(lesson, group=8, groups_per_step=64, learning_rate=1e-3)


def rl_reverse_six() -> Task:
    """Six digits, 43,392 weights: making a step's answers costs about as much as learning.

    8 prompts a step, 8 answers each.
    """
    lesson = rl_digits.Lesson(name="reverse", digits=6, width=64, layers=1, warm_up=240)
    return rl_digits.make_task(lesson, group=8, groups_per_step=8, learning_rate=2e-4)
