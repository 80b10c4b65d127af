"""What was computed in the last steps, kept to predict what is not."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from weft.diffusion.extrapolate import weights
from weft.diffusion.plan import Predictor

__all__ = ["History", "Keep"]

DEPTH = max(predictor.order for predictor in Predictor) + 1
"""Values that the highest degree takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How values are kept.

    Attributes:
        dtype: of what is kept; None for the tensors' own.
        device: where it is kept, "cpu" to spare a GPU's memory; None for the tensors' own.
        limit_bytes: most that one run may keep; None for no limit [bytes].
    """

    dtype: torch.dtype | None = None
    device: str | None = None
    limit_bytes: int | None = None


class History:
    """The last values of one quantity, each a tuple of tensors, with their positions.

    Args:
        keep: how.
    """

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._kept: deque[tuple[float, tuple[Tensor, ...]]] = deque(maxlen=DEPTH)
        self._like: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def num_bytes(self) -> int:
        """What is kept [bytes]."""
        return sum(tensor.nbytes for _, value in self._kept for tensor in value)

    def push(self, position: float, value: tuple[Tensor, ...]) -> None:
        """Keep a copy of a value; one at a position that is there takes its place."""
        if self._kept and self._kept[-1][0] == position:
            self._kept.pop()
        if self._kept and [t.shape for t in value] != [t.shape for t in self._kept[-1][1]]:
            self._kept.clear()
        copies = tuple(t.detach().to(self._keep.device, self._keep.dtype, copy=True) for t in value)
        self._kept.append((position, copies))
        self._like = tuple(t.new_empty(0) for t in value)

    def predict(
        self, position: float, predictor: Predictor, fitted: tuple[float, ...] = ()
    ) -> tuple[Tensor, ...]:
        """What the value would be here, by the last values or, early on, by fewer of them.

        The result is of the values' own dtype and device, and nobody else holds it.

        Args:
            position: where.
            predictor: how.
            fitted: how much each of the last values counts; where fewer are there, or none were
                fitted, a polynomial says that.
        """
        assert self._kept, "nothing was computed yet"
        used = list(self._kept)[-(len(fitted) or predictor.order + 1) :]
        is_fitted = len(fitted) == len(used)
        factors = fitted if is_fitted else weights([at for at, _ in used], position)
        return tuple(
            self._mixed(factors, [value[n] for _, value in used], like)
            for n, like in enumerate(self._like)
        )

    @staticmethod
    def _mixed(factors: tuple[float, ...], values: list[Tensor], like: Tensor) -> Tensor:
        if len(values) == 1 and factors[0] == 1.0:
            return values[0].to(like.device, like.dtype, copy=True)
        found = values[-1].to(like.device, torch.float32) * factors[-1]
        for factor, value in zip(factors[:-1], values[:-1], strict=True):
            found.add_(value.to(like.device, torch.float32), alpha=factor)
        return found.to(like.dtype)
