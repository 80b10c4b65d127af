"""Large tensors as some hundred numbers, of which sums are sums and lengths are nearly lengths.

Each element is added, with a random sign, to one of the numbers at random; which, and with what
sign, depends on nothing but its place.

Source: count sketch (Charikar, Chen, Farach-Colton 2002); unbiased for scalar products, with a
relative error of about the square root of two over the count of numbers.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["NUMBERS", "Sketcher"]

NUMBERS = 512
SEED = 7


class Sketcher:
    """Sketches tensors of one length after another.

    Args:
        numbers: of a sketch.

    Attributes:
        numbers: of a sketch.
    """

    def __init__(self, numbers: int = NUMBERS) -> None:
        self.numbers = numbers
        self._places: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, tensor: Tensor) -> NDArray[np.float64]:
        """The sketch of a tensor, of any shape [numbers]."""
        flat = tensor.detach().double().flatten()
        place, sign = self._of(flat.numel(), flat.device)
        found = torch.zeros(self.numbers, dtype=torch.float64, device=flat.device)
        return found.index_add_(0, place, flat * sign).cpu().numpy()

    def _of(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        if length not in self._places:
            generator = torch.Generator().manual_seed(SEED)
            place = torch.randint(self.numbers, (length,), generator=generator)
            sign = torch.randint(2, (length,), generator=generator).double() * 2 - 1
            self._places[length] = (place.to(device), sign.to(device))
        place, sign = self._places[length]
        return place.to(device), sign.to(device)
