"""The training step as one pure function of its state, the batch and a seed.

Capture traces it on fake tensors; on real ones it is the single-process reference that every
plan's run is compared with. It changes nothing: not the module, not the given tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn

from weft.capture.intercept import FunctionalCalls
from weft.capture.position import at
from weft.capture.source import user_code
from weft.capture.tensors import ModuleTensors, module_tensors
from weft.capture.workload import Workload, build_model
from weft.core.errors import CaptureError, WeftError
from weft.program.graph import Phase

__all__ = [
    "State",
    "Step",
    "bind_forward",
    "bind_step",
    "initial_state",
    "make_step",
    "state_of",
]

State: TypeAlias = dict[str, Tensor]
"""Parameters, buffers and optimizer state by input name."""

Step: TypeAlias = Callable[[State, Mapping[str, Tensor], Tensor], tuple[Tensor, State]]


def initial_state(workload: Workload) -> State:
    """State before the first step: parameters, buffers, then the optimizer's, by input name.

    Two calls give equal tensors: the model is made with the workload's seed.

    Example:
        >>> from weft.capture import SGD, Workload
        >>> workload = Workload(
        ...     name="line",
        ...     model=lambda: nn.Linear(2, 1),
        ...     loss=lambda model, batch: model(batch["x"]).square().mean(),
        ...     batch=lambda step: {"x": torch.ones(4, 2)},
        ...     optimizer=SGD(lr=0.1, momentum=0.9),
        ... )
        >>> print(*initial_state(workload), sep=", ")
        weight, bias, optimizer.step, optimizer.momentum.weight, optimizer.momentum.bias
    """
    tensors = module_tensors(_built_for_real(workload))
    return state_of(workload, tensors)


def state_of(workload: Workload, tensors: ModuleTensors) -> State:
    """State before the first step of a module that is already made."""
    parameters = {name: t.detach().clone() for name, t in tensors.trainable.items()}
    fixed = {name: t.detach().clone() for name, t in tensors.fixed.items()}
    return parameters | fixed | workload.pure_optimizer.init(parameters)


def make_step(workload: Workload) -> Step:
    """The pure step `(state, batch, seed) -> (loss, next state)`.

    Args:
        workload: what to train. Its model is made once, for its structure.

    Returns:
        A function of the state by input name, the batch by key (without the `batch.` of the
        program's input names) and the seed of the step [scalar int64].

    Raises:
        CaptureError: the model is on the meta device; or, in the step: the loss is not a scalar,
            a trainable parameter gets no gradient or is changed by the forward.
    """
    return bind_step(workload, _built_for_real(workload))


def _built_for_real(workload: Workload) -> nn.Module:
    try:
        with user_code("model factory"):
            model = build_model(workload)
            tensors = module_tensors(model)
    except WeftError as error:
        raise error.within(workload.name) from error.__cause__
    empty = [name for name, t in (tensors.trainable | tensors.fixed).items() if t.is_meta]
    if empty:
        raise CaptureError(
            need="a model with values, on a real device",
            got=f"{empty[0]} on the meta device",
            hint="leave the device out of the factory; capture needs no memory for it anyway",
        ).within(workload.name)
    return model


def bind_step(workload: Workload, model: nn.Module) -> Step:
    """`make_step` for a module that is already made."""
    tensors = module_tensors(model)

    def step(state: State, batch: Mapping[str, Tensor], seed: Tensor) -> tuple[Tensor, State]:
        leaves = {name: state[name].detach().requires_grad_() for name in tensors.trainable}
        loss, found, fixed = _forward(workload, model, tensors, state | leaves, batch, seed)
        with at(Phase.BACKWARD, ""):
            gradients = _gradients(loss, leaves)
        with torch.no_grad():
            parameters = {name: state[name] for name in leaves}
            parameters, slots = workload.pure_optimizer.update(gradients, state, parameters)
        return found, parameters | fixed | slots

    return step


def bind_forward(workload: Workload, model: nn.Module) -> Step:
    """The forward of `bind_step` alone: no gradients, no update."""
    tensors = module_tensors(model)

    def forward(state: State, batch: Mapping[str, Tensor], seed: Tensor) -> tuple[Tensor, State]:
        leaves = {name: state[name].detach().requires_grad_() for name in tensors.trainable}
        _, found, fixed = _forward(workload, model, tensors, state | leaves, batch, seed)
        return found, fixed

    return forward


def _forward(
    workload: Workload,
    model: nn.Module,
    tensors: ModuleTensors,
    state: State,
    batch: Mapping[str, Tensor],
    seed: Tensor,
) -> tuple[Tensor, Tensor, State]:
    """Loss to differentiate, loss to return, and the next values of buffers."""
    dtype = workload.compute_dtype
    with at(Phase.FORWARD, ""), torch.enable_grad():
        # A forward may change buffers and batch in place; what is given must stay as it is.
        fixed = {name: state[name].detach().clone() for name in tensors.fixed}
        values = {name: _cast(state[name], dtype, name) for name in tensors.trainable} | fixed
        entries = {key: _cast(value.clone(), dtype) for key, value in batch.items()}
        versions = {name: values[name]._version for name in tensors.trainable}
        with tensors.replaced(values) as assigned, FunctionalCalls(seed):
            loss = workload.loss(model, entries)
        _require_scalar(loss)
        _require_unchanged(values, versions)
        after = {name: assigned.get(name, fixed[name]).detach() for name in fixed}
        return loss, loss.detach(), after


def _cast(tensor: Tensor, dtype: torch.dtype | None, name: str = "") -> Tensor:
    if dtype is None or not tensor.is_floating_point():
        return tensor
    with at(Phase.FORWARD, name.rpartition(".")[0]):
        return tensor.to(dtype)


def _require_scalar(loss: object) -> None:
    if isinstance(loss, Tensor) and loss.dim() == 0 and loss.is_floating_point():
        return
    got = f"{loss.dtype} of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
    raise CaptureError(
        need="a loss that is a floating-point scalar",
        got=got,
        hint="end the workload's loss with .mean() or .sum()",
    )


def _require_unchanged(values: State, versions: Mapping[str, int]) -> None:
    changed = [name for name, version in versions.items() if values[name]._version != version]
    if changed:
        raise CaptureError(
            need="a forward that leaves trainable parameters as they are",
            got=f"{changed[0]} changed in place",
            hint="make it a buffer, or compute the changed value as a new tensor",
        )


def _gradients(loss: Tensor, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if loss.requires_grad:
        found = torch.autograd.grad(loss, tuple(leaves.values()), allow_unused=True)
    else:
        found = (None,) * len(leaves)
    missing = [name for name, gradient in zip(leaves, found, strict=True) if gradient is None]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise CaptureError(
            need="a gradient for every trainable parameter",
            got=f"none for {', '.join(missing[:5])}{more}",
            hint="call requires_grad_(False) on what the loss does not depend on, and build the "
            "model on a real device rather than on meta",
        )
    return {n: g for n, g in zip(leaves, found, strict=True) if g is not None}
