"""Workloads: a model, its loss, its data and its optimizer, written for one device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from weft.capture.optimizer import Optimizer, TorchFactory, from_torch
from weft.core.errors import InputError
from weft.core.functions import require_functions

__all__ = ["Workload", "build_model"]

_FUNCTIONS = {
    "model": "lambda: nn.Linear(2, 1), which makes the module",
    "loss": 'lambda model, batch: model(batch["x"]).mean()',
    "batch": 'lambda step: {"x": torch.ones(4, 2)}',
}
"""Fields that are functions, and what one looks like."""

_COMPUTE_DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What to train, on one device, with nothing said about how to split it.

    Attributes:
        name: what people call it.
        model: makes the module, with the current default device, default element type and
            random state; a training step runs it in the mode it is returned in.
        loss: applies the module to a batch, and returns a scalar.
        batch: the global batch of a step, the same for the same step number. All steps have
            the same shapes.
        optimizer: a `weft.capture.Optimizer`, or a factory such as
            `lambda p: torch.optim.AdamW(p, lr=1e-3)`, which is turned into one.
        compute_dtype: None computes in the parameters' own type. Else floating parameters and
            batch entries are cast to it for the loss, while the parameters that the optimizer
            updates, its state and the gradients it gets keep their type. Buffers are not cast.
        seed: random state that the model is made with.

    Raises:
        InputError: a field is of the wrong kind: the name is empty, a function is none, the seed
            is no integer, the compute type is not a floating-point type, or the optimizer has
            no pure form.

    Example:
        >>> workload = Workload(
        ...     name="line",
        ...     model=lambda: nn.Linear(2, 1),
        ...     loss=lambda model, batch: model(batch["x"]).square().mean(),
        ...     batch=lambda step: {"x": torch.ones(4, 2)},
        ...     optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
        ... )
        >>> workload.pure_optimizer
        SGD(lr=0.1, momentum=0.0, weight_decay=0.0, nesterov=False)
    """

    name: str
    model: Callable[[], nn.Module]
    loss: Callable[[nn.Module, Mapping[str, Tensor]], Tensor]
    batch: Callable[[int], Mapping[str, Tensor]]
    optimizer: Optimizer | TorchFactory
    compute_dtype: torch.dtype | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:  # pyright: ignore[reportUnnecessaryIsInstance]
            got = f"name={self.name!r}"
            raise InputError(need="a name", got=got, hint='Workload(name="mlp", ...)')
        require_functions(self, _FUNCTIONS, unlike=nn.Module)
        if type(self.seed) is not int or not -(2**63) <= self.seed < 2**64:
            raise InputError(
                need="seed: an integer of 64 bits", got=f"seed={self.seed!r}", hint="seed=0"
            )
        if self.compute_dtype is not None and self.compute_dtype not in _COMPUTE_DTYPES:
            raise InputError(
                need="None or a floating-point element type to compute in",
                got=f"compute_dtype {self.compute_dtype}",
                hint="torch.bfloat16 is the usual one",
            )
        if not isinstance(self.optimizer, Optimizer):
            object.__setattr__(self, "optimizer", from_torch(self.optimizer))

    @property
    def pure_optimizer(self) -> Optimizer:
        """The optimizer as a pure pair."""
        return cast("Optimizer", self.optimizer)


def build_model(workload: Workload) -> nn.Module:
    """The module, made with the workload's seed; the caller's random state is left alone.

    Raises:
        InputError: the factory makes something else.
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(workload.seed)
        made: object = workload.model()
    if not isinstance(made, nn.Module):
        raise InputError(
            need="a model factory that returns a torch.nn.Module",
            got=f"{type(made).__name__}",
            hint="end it with `return model`",
        )
    return made
