"""An optimizer around an optimizer: what GAC and delay compensation have in common.

A wrapper changes gradients just before the optimizer inside uses them. It is an optimizer itself,
with the parameter groups and the state of the one inside, so schedulers, gradient scalers, trainers
and checkpoints take it for that. Wrappers can be put around wrappers: the outer one goes first.

    loss.backward(); scaler.unscale_(opt); clip_grad_norm_(params, 1.0); opt.step()

Gradient scalers. The wrapper never says that it scales by itself, even where the one inside is
fused and could: the scaler then takes the scale out before it calls `step`, and does not call it
at all when a gradient is not finite, so nothing of such a step is ever seen here.

Checkpoints. What a wrapper keeps of a parameter is put beside the optimizer's own state of that
parameter, so that `torch.distributed.checkpoint` shards and reshards it alike; the rest has a key
of its own. Both may be missing when a checkpoint is loaded.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from weft.core.errors import InputError, MismatchError

__all__ = ["Wrapper"]

State = dict[str, Any]


class Wrapper(torch.optim.Optimizer):
    """Base of what stands between gradients and an optimizer.

    Args:
        optimizer: the one inside, which may be a wrapper, too.

    Raises:
        InputError: it is no optimizer, has no parameters, evaluates its closure several times, or
            contains a wrapper of the same kind.
    """

    key = ""
    """Under which a checkpoint holds what belongs to no parameter; a prefix of what does."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        _check(type(self), optimizer)
        self.optimizer = optimizer
        self._begin_hooks()

    def _begin_hooks(self) -> None:
        self._optimizer_step_pre_hooks = OrderedDict()
        self._optimizer_step_post_hooks = OrderedDict()
        self._optimizer_state_dict_pre_hooks = OrderedDict()
        self._optimizer_state_dict_post_hooks = OrderedDict()
        self._optimizer_load_state_dict_pre_hooks = OrderedDict()
        self._optimizer_load_state_dict_post_hooks = OrderedDict()
        self._patch_step_function()

    # What is the optimizer's own: it replaces these when it loads a checkpoint.

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of the optimizer inside."""
        return self.optimizer.param_groups

    @param_groups.setter
    def param_groups(self, value: list[dict[str, Any]]) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self.optimizer.param_groups = value

    @property
    def state(self) -> defaultdict[Tensor, Any]:
        """The state of the optimizer inside."""
        return self.optimizer.state

    @state.setter
    def state(self, value: defaultdict[Tensor, Any]) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self.optimizer.state = value

    @property
    def defaults(self) -> dict[str, Any]:
        """The defaults of the optimizer inside."""
        return self.optimizer.defaults

    @defaults.setter
    def defaults(self, value: dict[str, Any]) -> None:
        self.optimizer.defaults = value

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As the optimizer inside does it."""
        self.optimizer.zero_grad(set_to_none=set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the optimizer inside."""
        self.optimizer.add_param_group(param_group)

    def parameters(self) -> list[Tensor]:
        """All parameters, in the order in which a checkpoint counts them."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    # The step.

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Change the gradients, and let the optimizer inside use them.

        Args:
            closure: computes loss and gradients. It is called once, here, with gradients enabled;
                the optimizer inside gets the gradients and no closure.

        Returns:
            What the closure returned, if there is one.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.before():
            self.optimizer.step()
            self.after()
        return loss

    @abstractmethod
    def before(self) -> bool:
        """Change gradients in place; False to take no step."""

    def after(self) -> None:
        """What there is to do after a step of the optimizer inside; nothing, by default."""

    # Checkpoints.

    def kept(self, parameter: Tensor) -> Mapping[str, Tensor]:
        """What is kept of a parameter, by names that begin with `key`; nothing, by default."""
        return {}

    @abstractmethod
    def own_state(self) -> State:
        """What is kept that belongs to no parameter: plain values."""

    @abstractmethod
    def restore(self, state: State | None, kept: Mapping[Tensor, Mapping[str, Tensor]]) -> None:
        """Take up what a checkpoint holds; None and nothing where it holds nothing of this kind."""

    def check(self, kept: Mapping[Tensor, Mapping[str, Tensor]]) -> None:
        """Refuse what is of another model, before anything is loaded."""
        for parameter, values in kept.items():
            for name, value in values.items():
                if value.shape != parameter.shape:
                    raise MismatchError(
                        need=f"a checkpoint of this model: {name} of shape"
                        f" {tuple(parameter.shape)}",
                        got=f"shape {tuple(value.shape)}",
                        hint="load the checkpoint of the model that this optimizer was made for",
                    )

    def state_dict(self) -> State:
        """State of the optimizer inside, and of this wrapper."""
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        packed = dict(self.optimizer.state_dict())
        packed["state"] = dict(packed["state"])
        for index, parameter in enumerate(self.parameters()):
            if kept := self.kept(parameter):
                packed["state"][index] = {**packed["state"].get(index, {}), **kept}
        packed[self.key] = self.own_state()
        for hook in self._optimizer_state_dict_post_hooks.values():
            packed = hook(self, packed) or packed
        return packed

    def load_state_dict(self, state_dict: State) -> None:
        """Load what `state_dict` made, or the state of a bare optimizer.

        Raises:
            MismatchError: the state is that of another model.
        """
        packed = dict(state_dict)
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            packed = hook(self, packed) or packed
        self._check_groups(packed)
        own = packed.pop(self.key, None)
        kept: dict[Tensor, dict[str, Tensor]] = {}
        packed["state"] = dict(packed["state"])
        # Checkpoints of torch.distributed call parameters by their names instead of numbers.
        called = [name for group in packed["param_groups"] for name in group["params"]]
        parameters = dict(zip(called, self.parameters(), strict=True))
        for index, values in list(packed["state"].items()):
            mine = {name: value for name, value in values.items() if self._is_mine(name)}
            if not mine:
                continue
            rest = {name: value for name, value in values.items() if name not in mine}
            if rest:
                packed["state"][index] = rest
            else:  # an empty state would look to an optimizer like one that it has set up
                del packed["state"][index]
            kept[parameters[index]] = cast("dict[str, Tensor]", mine)
        self.check(kept)
        self.optimizer.load_state_dict(packed)
        self.restore(own, kept)
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)

    def _is_mine(self, name: object) -> bool:
        return isinstance(name, str) and name.startswith(self.key + "_")

    def _check_groups(self, packed: State) -> None:
        sizes = [len(group["params"]) for group in self.param_groups]
        found = [len(group["params"]) for group in packed["param_groups"]]
        if sizes != found:
            raise MismatchError(
                need=f"a checkpoint of parameter groups of {sizes} parameters",
                got=f"groups of {found}",
                hint="load the checkpoint of the model that this optimizer was made for",
            )

    # Copies and processes. Hooks and what schedulers put over `step` stay behind, as they do with
    # torch's own optimizers.

    def __getstate__(self) -> State:
        return {
            name: value
            for name, value in self.__dict__.items()
            if name != "step" and not name.startswith("_optimizer_")
        }

    def __setstate__(self, state: State) -> None:
        self.__dict__.update(state)
        self._begin_hooks()


def _check(kind: type[Wrapper], optimizer: object) -> None:
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InputError(
            need="an optimizer of torch's kind to wrap",
            got=type(optimizer).__name__,
            hint=f"{kind.__name__}(torch.optim.AdamW(model.parameters(), lr=1e-5))",
        )
    inner = optimizer
    while isinstance(inner, Wrapper):
        if isinstance(inner, kind):
            raise InputError(
                need=f"at most one {kind.__name__} around an optimizer",
                got=f"one inside {type(optimizer).__name__} already",
                hint="wrap the optimizer itself once",
            )
        inner = inner.optimizer
    if isinstance(inner, torch.optim.LBFGS):
        raise InputError(
            need="an optimizer that takes one gradient a step",
            got="LBFGS, which evaluates its closure several times",
            hint="use AdamW, SGD or another first-order optimizer",
        )
    if not any(group["params"] for group in optimizer.param_groups):
        raise InputError(
            need="an optimizer with parameters",
            got=f"{type(optimizer).__name__} with {len(optimizer.param_groups)} empty groups",
            hint="make it of the parameters that are trained",
        )
