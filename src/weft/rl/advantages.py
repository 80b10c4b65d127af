"""Advantages of answers within their groups: how much better than the others to the same prompt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from math import sqrt

__all__ = ["SMALLEST_SPREAD", "group_advantages"]

SMALLEST_SPREAD = 1e-4
"""What is added to a group's spread before it is divided by.
Chosen: far below the spread of rewards of 0 and 1, of which one in a million differs at 1e-3."""


def group_advantages(
    rewards: Sequence[float], groups: Sequence[Hashable], *, normalise: bool = True
) -> list[float]:
    """Differences from the mean of the group, in units of its standard deviation.

    A group whose answers are all worth the same teaches nothing: its advantages are 0.

    Args:
        rewards: of each answer.
        groups: which group each belongs to.
        normalise: False to leave out the division, which weighs groups up whose answers are nearly
            all right or nearly all wrong.

    Source: Shao et al. 2024, arXiv 2402.03300, section 4.1.2; without the division, Liu et al.
    2025, arXiv 2503.20783.

    Example:
        >>> group_advantages([1.0, 0.0, 5.0, 5.0], ["a", "a", "b", "b"], normalise=False)
        [0.5, -0.5, 0.0, 0.0]
    """
    members: defaultdict[Hashable, list[float]] = defaultdict(list)
    for reward, group in zip(rewards, groups, strict=True):
        members[group].append(reward)
    scales: dict[Hashable, tuple[float, float]] = {}
    for group, found in members.items():
        mean = sum(found) / len(found)
        square = sum((reward - mean) ** 2 for reward in found)
        spread = sqrt(square / max(1, len(found) - 1)) + SMALLEST_SPREAD
        if min(found) == max(found):
            mean = found[0]  # where rewards are large, the mean's rounding would be a spread
        scales[group] = (mean, spread if normalise else 1.0)
    return [
        (reward - scales[group][0]) / scales[group][1]
        for reward, group in zip(rewards, groups, strict=True)
    ]
