"""Batches: what a workload's batch function has to return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from weft.core.errors import InputError

__all__ = ["require_batch"]


def require_batch(batch: object, step: int) -> Mapping[str, Tensor]:
    """The batch of a step, if it is one: a mapping of names to dense tensors.

    Args:
        batch: what the workload's batch function returned.
        step: for which step.

    Raises:
        InputError: it is not; the error names the entry and the step.

    Example:
        >>> sorted(require_batch({"x": torch.ones(2)}, 0))
        ['x']
    """
    if not isinstance(batch, Mapping):
        raise _refused("a mapping of names to tensors", f"{_described(batch)} as a whole", step)
    for key, value in cast("Mapping[object, object]", batch).items():
        if not isinstance(key, str):
            raise _refused("names that are text", f"the name {key!r}", step)
        if not isinstance(value, Tensor):
            raise _refused("a tensor for every entry", f"{key} = {_described(value)}", step)
        if value.layout is not torch.strided or value.is_nested:
            raise _refused("dense tensors", f"{key} = {_described(value)}", step)
    return cast("Mapping[str, Tensor]", batch)


def _refused(need: str, got: str, step: int) -> InputError:
    return InputError(
        need=f"a batch function that returns {need}",
        got=f"{got}, in the batch of step {step}",
        hint='for example {"x": torch.ones(4, 2)}; give constants to the loss or the model instead',
    )


def _described(value: object) -> str:
    if not isinstance(value, Tensor):
        return f"{type(value).__name__} {value!r:.80}" if value is not None else "None"
    return "a nested tensor" if value.is_nested else f"a tensor of layout {value.layout}"
