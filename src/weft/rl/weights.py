"""Weights on their way from a learner to those who make samples: plain arrays by name.

Arrays cross processes without a copy where the transport has shared memory. Types that NumPy does
not know travel as the integers of their bits, which say nothing by themselves: the receiving model
has to be of the same types.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from weft.core.errors import MismatchError

__all__ = ["Weights", "load_weights", "pack_weights"]

Weights = Mapping[str, NDArray[np.generic]]
"""Arrays by the names of a model's state."""

_AS_BITS = {torch.bfloat16: torch.int16}


@torch.no_grad()
def pack_weights(model: nn.Module) -> dict[str, NDArray[np.generic]]:
    """Copies of a model's weights and buffers."""
    packed: dict[str, NDArray[np.generic]] = {}
    for name, value in model.state_dict().items():
        plain = value.detach().to("cpu", copy=True)
        packed[name] = plain.view(_AS_BITS.get(plain.dtype, plain.dtype)).numpy()
    return packed


@torch.no_grad()
def load_weights(model: nn.Module, weights: Weights) -> None:
    """Put them into a model of the same shapes and types.

    Raises:
        MismatchError: they are those of another model.

    Example:
        >>> one, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
        >>> load_weights(other, pack_weights(one))
        >>> torch.equal(one.weight, other.weight)
        True
    """
    own: dict[str, Tensor] = model.state_dict()
    if own.keys() != weights.keys():
        strange = sorted(own.keys() ^ weights.keys())
        raise _another(f"{len(strange)} names that only one of them has: {', '.join(strange[:3])}")
    for name, value in own.items():
        # A copy, since arrays in shared memory cannot be written to, which torch warns about.
        found = torch.from_numpy(np.array(weights[name]))
        if _AS_BITS.get(value.dtype) == found.dtype:
            found = found.view(value.dtype)
        if (found.shape, found.dtype) != (value.shape, value.dtype):
            raise _another(f"{name}: {tuple(found.shape)} of {found.dtype}")
        value.copy_(found)


def _another(got: str) -> MismatchError:
    return MismatchError(
        need="weights of this model",
        got=got,
        hint="make_model has to give the same model in each process",
    )
