"""Sort four digits: a task of reinforcement learning for two layers of attention."""

from __future__ import annotations

import rl_digits

from weft.rl.task import Task

__all__ = ["rl_sort"]


def rl_sort() -> Task:
    """A network of two layers and 64 channels; 64 prompts a step, 8 answers each."""
    lesson = rl_digits.Lesson(name="sort", digits=4, width=64, layers=2, warm_up=60)
    return rl_digits.make_task(lesson, group=8, groups_per_step=64, learning_rate=1e-3)
