"""Decisions that differ little from a good one: what a refinement tries, in order.

One change at a time gets stuck where rows would have to cross over for it: a group that moves alone
pays on both sides. So all groups that are decided alike move together first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from weft.parallel.mcts.options import Choice, Options

__all__ = ["Choices", "variations"]

Choices: TypeAlias = tuple[Choice, ...]
"""One for each group of operators."""


def variations(best: Callable[[], Choices], options: Options) -> Iterator[Choices]:
    """Changes of the best, each of what is best by then.

    All groups do the same; then all that do the same do something else; then one group does what
    another one does; then it does anything else.

    Args:
        best: asked for before each change.
        options: what there is to choose from.
    """
    count = len(best())
    for choice in options.listed:
        yield (choice,) * count
    for old in dict.fromkeys(best()):
        for new in options.near(old):
            yield tuple(new if choice == old else choice for choice in best())
    for group in range(count):
        for choice in dict.fromkeys(best()):
            yield _with(best(), group, choice)
    for group in range(count):
        for choice in options.near(best()[group]):
            yield _with(best(), group, choice)


def _with(choices: Choices, group: int, choice: Choice) -> Choices:
    return (*choices[:group], choice, *choices[group + 1 :])
