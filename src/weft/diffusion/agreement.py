"""Ranks that share a run do the same in each of its steps, whatever each of them sees.

Policies that compare tensors see one part of them on each rank, and those that learn make plans of
what they saw. A rank that computes while another predicts would wait for it in vain, so distances
are the mean over ranks, plans are the first rank's, and what one rank refuses all refuse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from weft.core.errors import WeftError

__all__ = ["Agreement"]

T = TypeVar("T")


class Agreement:
    """Of the ranks of a group.

    Args:
        group: of torch.distributed's; None where a rank is alone, and agrees with itself.
    """

    def __init__(self, group: Any = None) -> None:
        self._group = group

    def mean(self, distances: dict[str, Tensor]) -> dict[str, float]:
        """Distances as numbers, the mean over ranks."""
        if not distances:
            return {}
        found = torch.stack([value.float() for value in distances.values()])
        if self._group is not None:
            distributed.all_reduce(found, group=self._group)
            found /= distributed.get_world_size(self._group)
        return dict(zip(distances, found.tolist(), strict=True))

    def first(self, make: Callable[[], T]) -> T:
        """What the first rank makes of all that make something.

        Raises:
            WeftError: a rank could not.
        """
        return make() if self._group is None else self._made(make)[0]

    def each(self, make: Callable[[], T]) -> T:
        """What this rank makes, if all can.

        Raises:
            WeftError: a rank could not.
        """
        own: list[T] = []
        self.first(lambda: own.append(make()))
        return own[0]

    def _made(self, make: Callable[[], T]) -> list[T]:
        try:
            own: T | WeftError = make()
        except WeftError as error:
            own = error
        every: list[Any] = [None] * distributed.get_world_size(self._group)
        distributed.all_gather_object(every, own, group=self._group)
        for made in (own, *every):  # its own error first, which knows where it came from
            if isinstance(made, WeftError):
                raise made
        return every
