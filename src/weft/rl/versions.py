"""Weights as they were: the versions that samples may have been made with.

A version is a number, usually how many steps had been taken, and this process's part of the weights
at that time. A bounded number of them is kept, by default on the CPU; the oldest goes first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from weft.core.errors import InputError, MismatchError
from weft.rl.shards import local

__all__ = ["Versions"]


class Versions:
    """Keeps the last few published weights.

    Args:
        keep: how many. Samples that are n steps old need n + 1, that of the current step included.
        device: where they are kept; None for where the weights are.
        dtype: precision they are kept in; None for that of the weights. What is lost is lost from
            a difference of weights, which is small beside them: half precision is not advised.

    Raises:
        InputError: fewer than one.

    Example:
        >>> versions = Versions(keep=2)
        >>> for number in range(3):
        ...     versions.publish(number, [torch.full((1,), float(number))])
        >>> versions.held, versions[1][0].item()
        ((1, 2), 1.0)
    """

    def __init__(
        self,
        *,
        keep: int,
        device: torch.device | str | None = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        if keep < 1:
            raise InputError(
                need="at least one version to keep",
                got=f"keep={keep}",
                hint="keep one more than the samples are old at most",
            )
        self.keep = keep
        self._device = device
        self._dtype = dtype
        self._kept: dict[int, list[Tensor]] = {}

    @property
    def held(self) -> tuple[int, ...]:
        """The versions at hand, oldest first."""
        return tuple(sorted(self._kept))

    @torch.no_grad()
    def publish(self, version: int, parameters: Sequence[Tensor]) -> None:
        """Keep a copy of weights; of a version that is held already, this one replaces it.

        Args:
            version: its number.
            parameters: the weights; of sharded ones, this process's part is kept.
        """
        mine = [local(parameter) for parameter in parameters]
        # Memory of the version that has to go is used again.
        room = self._kept.pop(version, None)
        if room is None and len(self._kept) >= self.keep:
            room = self._kept.pop(self.held[0])
        if room is None or [t.shape for t in room] != [t.shape for t in mine]:
            room = [
                torch.empty_like(own, device=self._device, dtype=self._dtype, requires_grad=False)
                for own in mine
            ]
        for kept, own in zip(room, mine, strict=True):
            kept.copy_(own)
        self._kept[version] = room

    def __getitem__(self, version: int) -> Sequence[Tensor]:
        if version not in self._kept:
            raise InputError(
                need=f"the weights of version {version}",
                got=f"versions {', '.join(map(str, self.held)) or 'none'} are held",
                hint=f"keep more than {self.keep}, publish in time, or drop older samples",
            )
        return self._kept[version]

    def state_dict(self) -> dict[str, Any]:
        """All versions, for a checkpoint: `keep` times the size of the weights."""
        return {"versions": {number: list(kept) for number, kept in self._kept.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` made.

        Raises:
            MismatchError: it holds more versions than are kept here.
        """
        found: Mapping[int, Sequence[Tensor]] = state["versions"]
        if len(found) > self.keep:
            raise MismatchError(
                need=f"at most {self.keep} versions",
                got=f"{len(found)}: {', '.join(map(str, sorted(found)))}",
                hint=f"Versions(keep={len(found)})",
            )
        self._kept = {}
        for number in sorted(found):
            self.publish(number, found[number])
