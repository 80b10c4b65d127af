"""Optimizers as pure pairs: `init` makes the state, `update` the next parameters and state.

They follow `torch.optim` number for number (up to the order of roundings), but hold nothing:
all state is in a dictionary of tensors, named `optimizer.<slot>.<parameter>`, plus the number
of steps done, `optimizer.step`. That makes a training step one function that can be traced.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from weft.capture.position import at
from weft.core.errors import InputError
from weft.program.graph import Phase

__all__ = [
    "SGD",
    "Adafactor",
    "AdamW",
    "LearningRate",
    "Optimizer",
    "TorchFactory",
    "from_torch",
    "state_name",
]

LearningRate: TypeAlias = float | Callable[[Tensor], Tensor]
"""A number, or a function of the number of steps done so far (a scalar float64 tensor, 0 in
the first step) built from torch operations."""

TorchFactory: TypeAlias = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]

_STEP = "optimizer.step"


def state_name(slot: str, parameter: str) -> str:
    """Name of the state that `slot` of an optimizer keeps for a parameter.

    Example:
        >>> state_name("exp_avg", "layers.0.weight")
        'optimizer.exp_avg.layers.0.weight'
    """
    return f"optimizer.{slot}.{parameter}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer(ABC):
    """Base of the optimizers: loops over parameters, leaves one parameter to `advance`."""

    @abstractmethod
    def slots(self, parameter: Tensor) -> dict[str, Tensor]:
        """First state of one parameter, by slot."""

    @abstractmethod
    def scalars(self, done: Tensor) -> tuple[Tensor, ...]:
        """What `advance` needs to know of the step: scalar float64 tensors.

        Args:
            done: number of steps done before this one [scalar float64].
        """

    @abstractmethod
    def advance(
        self,
        gradient: Tensor,
        slots: dict[str, Tensor],
        parameter: Tensor,
        scalars: tuple[Tensor, ...],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Next value of one parameter and its slots; `scalars` are in the parameter's type."""

    def init(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """State before the first step, by name."""
        state: dict[str, Tensor] = {}
        device = next((p.device for p in parameters.values()), torch.device("cpu"))
        state[_STEP] = torch.zeros((), dtype=torch.int64, device=device)
        for name, parameter in parameters.items():
            for slot, value in self.slots(parameter).items():
                state[state_name(slot, name)] = value
        return state

    def update(
        self,
        gradients: Mapping[str, Tensor],
        state: Mapping[str, Tensor],
        parameters: Mapping[str, Tensor],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One step: the next parameters and the next state. Nothing is changed in place."""
        new_parameters: dict[str, Tensor] = {}
        with at(Phase.UPDATE, "optimizer"):
            new_state = {_STEP: state[_STEP] + 1}
            scalars = self.scalars(state[_STEP].to(torch.float64))
            by_dtype = {
                dtype: tuple(s.to(dtype) for s in scalars)
                for dtype in dict.fromkeys(p.dtype for p in parameters.values())
            }
        for name, parameter in parameters.items():
            with at(Phase.UPDATE, f"optimizer.{name}"):
                slots = {slot: state[state_name(slot, name)] for slot in self.slot_names(parameter)}
                new_parameters[name], new_slots = self.advance(
                    gradients[name], slots, parameter, by_dtype[parameter.dtype]
                )
            new_state |= {state_name(slot, name): value for slot, value in new_slots.items()}
        return new_parameters, new_state

    @abstractmethod
    def slot_names(self, parameter: Tensor) -> tuple[str, ...]:
        """Names of the slots that a parameter of this shape has."""


def _require(holds: bool, need: str, field: str, value: object) -> None:
    if not holds:
        raise InputError(
            need=f"{field}: {need}",
            got=f"{field}={value!r}",
            hint=f"leave {field.partition('[')[0]} out for its default",
        )


def _is_number(value: object) -> bool:
    is_real = isinstance(value, Real) and not isinstance(value, bool)
    return is_real and math.isfinite(cast("float", value))


def _require_rate(lr: object) -> None:
    holds = callable(lr) or (_is_number(lr) and cast("float", lr) >= 0.0)
    _require(holds, "a finite number of at least 0, or a function of the steps done", "lr", lr)


def _require_at_least_0(field: str, value: object) -> None:
    holds = _is_number(value) and cast("float", value) >= 0.0
    _require(holds, "a finite number of at least 0", field, value)


def _require_share(field: str, value: object) -> None:
    holds = _is_number(value) and 0.0 <= cast("float", value) < 1.0
    _require(holds, "a number of at least 0 and below 1", field, value)


def _require_pair(field: str, value: object) -> None:
    holds = isinstance(value, tuple | list) and len(cast("tuple[object, ...]", value)) == 2
    _require(holds, "two numbers", field, value)


def _rate(lr: LearningRate, done: Tensor) -> Tensor:
    """Learning rate of the step as a scalar float64 tensor."""
    if callable(lr):
        return lr(done).to(torch.float64)
    return torch.full((), lr, dtype=torch.float64, device=done.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay, as `torch.optim.AdamW`.

    m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,
    p = (1 - lr wd) p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    Raises:
        InputError: a setting is out of range, or no number.

    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019, algorithm 2.
    """

    lr: LearningRate = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 1e-2

    def __post_init__(self) -> None:
        _require_rate(self.lr)
        _require_pair("betas", self.betas)
        for number, beta in enumerate(self.betas):
            _require_share(f"betas[{number}]", beta)
        _require_at_least_0("eps", self.eps)
        _require_at_least_0("weight_decay", self.weight_decay)

    def slot_names(self, parameter: Tensor) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def slots(self, parameter: Tensor) -> dict[str, Tensor]:
        return {slot: torch.zeros_like(parameter) for slot in self.slot_names(parameter)}

    def scalars(self, done: Tensor) -> tuple[Tensor, ...]:
        step = done + 1.0
        first, second = (1.0 - torch.pow(beta, step) for beta in self.betas)
        rate = _rate(self.lr, done)
        return rate / first, second.rsqrt(), 1.0 - rate * self.weight_decay

    def advance(
        self,
        gradient: Tensor,
        slots: dict[str, Tensor],
        parameter: Tensor,
        scalars: tuple[Tensor, ...],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        rate, inverse_root, keep = scalars
        (b1, b2) = self.betas
        m = slots["exp_avg"] * b1 + gradient * (1.0 - b1)
        v = slots["exp_avg_sq"] * b2 + gradient * gradient * (1.0 - b2)
        kept = parameter * keep if self.weight_decay else parameter
        new = kept - (m / (v.sqrt() * inverse_root + self.eps)) * rate
        return new, {"exp_avg": m, "exp_avg_sq": v}


@dataclass(frozen=True, slots=True, kw_only=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as `torch.optim.SGD` without dampening.

    g = g + wd p,  b = momentum b + g,  p = p - lr b  (nesterov: p - lr (g + momentum b))

    Raises:
        InputError: nesterov without momentum, or a setting is out of range, or no number.
    """

    lr: LearningRate = 1e-3
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        _require_rate(self.lr)
        _require_share("momentum", self.momentum)
        _require_at_least_0("weight_decay", self.weight_decay)
        if self.nesterov and self.momentum <= 0.0:
            raise InputError(
                need="momentum above 0 for nesterov",
                got=f"momentum {self.momentum}",
                hint="SGD(lr=..., momentum=0.9, nesterov=True)",
            )

    def slot_names(self, parameter: Tensor) -> tuple[str, ...]:
        return ("momentum",) if self.momentum else ()

    def slots(self, parameter: Tensor) -> dict[str, Tensor]:
        return {slot: torch.zeros_like(parameter) for slot in self.slot_names(parameter)}

    def scalars(self, done: Tensor) -> tuple[Tensor, ...]:
        return (_rate(self.lr, done),) if callable(self.lr) else ()

    def advance(
        self,
        gradient: Tensor,
        slots: dict[str, Tensor],
        parameter: Tensor,
        scalars: tuple[Tensor, ...],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        rate: Tensor | float = scalars[0] if callable(self.lr) else self.lr
        if self.weight_decay:
            gradient = gradient + parameter * self.weight_decay
        if not self.momentum:
            return parameter - gradient * rate, {}
        buffer = slots["momentum"] * self.momentum + gradient
        direction = gradient + buffer * self.momentum if self.nesterov else buffer
        return parameter - direction * rate, {"momentum": buffer}


@dataclass(frozen=True, slots=True, kw_only=True)
class Adafactor(Optimizer):
    """Adam with a factored second moment and relative step sizes, as `torch.optim.Adafactor`.

    A tensor of two or more dims keeps the row and column means of g^2 over its last two dims,
    a vector the whole of g^2. The update u = g / sqrt(v) is clipped to a root mean square of
    `d` and scaled by max(eps[1], rms(p)) min(lr, 1 / sqrt(t)).

    Args:
        eps: floors of the second moment (None: the machine epsilon of the parameter's type)
            and of the parameter's scale.

    Raises:
        InputError: a setting is out of range, or no number.

    Source: Shazeer and Stern, Adafactor, ICML 2018, algorithms 4 and 5.
    """

    lr: LearningRate = 1e-2
    beta2_decay: float = -0.8
    eps: tuple[float | None, float] = (None, 1e-3)
    d: float = 1.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _require_rate(self.lr)
        decay = self.beta2_decay
        _require(_is_number(decay) and decay <= 0.0, "at most 0", "beta2_decay", decay)
        _require_pair("eps", self.eps)
        if self.eps[0] is not None:
            _require_at_least_0("eps[0]", self.eps[0])
        _require_at_least_0("eps[1]", self.eps[1])
        _require(_is_number(self.d) and self.d >= 1.0, "at least 1", "d", self.d)
        _require_at_least_0("weight_decay", self.weight_decay)

    def slot_names(self, parameter: Tensor) -> tuple[str, ...]:
        return ("row_var", "col_var") if parameter.dim() > 1 else ("variance",)

    def slots(self, parameter: Tensor) -> dict[str, Tensor]:
        if parameter.dim() > 1:
            row, column = list(parameter.shape), list(parameter.shape)
            row[-1], column[-2] = 1, 1
            return {"row_var": parameter.new_zeros(row), "col_var": parameter.new_zeros(column)}
        return {"variance": torch.zeros_like(parameter)}

    def scalars(self, done: Tensor) -> tuple[Tensor, ...]:
        step = done + 1.0
        rate = _rate(self.lr, done)
        mix = torch.exp(torch.log(step) * self.beta2_decay)
        return mix, torch.minimum(rate, step.rsqrt()), 1.0 - rate * self.weight_decay

    def advance(
        self,
        gradient: Tensor,
        slots: dict[str, Tensor],
        parameter: Tensor,
        scalars: tuple[Tensor, ...],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        mix, rate, keep = scalars
        floor = torch.finfo(parameter.dtype).eps if self.eps[0] is None else self.eps[0]
        scale = _rms(parameter).clamp(min=self.eps[1]) * rate
        new_slots = {
            slot: old + (_mean_square(gradient, slot) - old) * mix for slot, old in slots.items()
        }
        if parameter.dim() > 1:
            row, column = new_slots["row_var"], new_slots["col_var"]
            mean = row.sum(dim=-2, keepdim=True) * (1.0 / row.shape[-2])
            second = row * column / mean.clamp(min=floor)
        else:
            second = new_slots["variance"]
        direction = second.clamp(min=floor * floor).rsqrt() * gradient
        clip = (_rms(direction) * (1.0 / self.d)).clamp(min=1.0)
        kept = parameter * keep if self.weight_decay else parameter
        return kept - direction * (scale / clip), new_slots


def _rms(x: Tensor) -> Tensor:
    """Root mean square of a whole tensor."""
    return ((x * x).sum() * (1.0 / max(x.numel(), 1))).sqrt()


def _mean_square(x: Tensor, slot: str) -> Tensor:
    """Mean of x^2 over what a slot of Adafactor does not keep."""
    square = x * x
    if slot == "variance":
        return square
    dim = -1 if slot == "row_var" else -2
    return square.sum(dim=dim, keepdim=True) * (1.0 / x.shape[dim])


_SWITCHES = ("amsgrad", "maximize", "dampening", "differentiable")


def from_torch(factory: TorchFactory) -> Optimizer:
    """The pure optimizer that does what a `torch.optim` factory's optimizer does.

    The factory is called once, on two small parameters, and its class and defaults are read.

    Raises:
        InputError: it is no factory; or the optimizer is of another class, uses an option that
            has no pure form here, or treats parameters differently (several parameter groups).

    Example:
        >>> from_torch(lambda p: torch.optim.SGD(p, lr=0.1))
        SGD(lr=0.1, momentum=0.0, weight_decay=0.0, nesterov=False)
    """
    made = _made_by(factory)
    options = cast(dict[str, Any], dict(made.defaults))
    kind = type(made)
    if len(made.param_groups) != 1 or len(made.param_groups[0]["params"]) != 2:
        raise InputError(
            need="one optimizer setting for all parameters",
            got=f"{kind.__name__} with {len(made.param_groups)} parameter groups",
            hint="give all parameters the same options",
        )
    used = [switch for switch in _SWITCHES if options.get(switch)]
    if kind is torch.optim.Adam and options["weight_decay"] and not _is_decoupled(options):
        used.append("weight_decay (not decoupled)")
    if kind not in _READERS or used:
        raise InputError(
            need="torch.optim.AdamW, Adam without weight decay, SGD or Adafactor",
            got=f"{kind.__name__}" + (f" with {', '.join(used)}" if used else ""),
            hint="use weft.capture.AdamW, SGD or Adafactor, or subclass weft.capture.Optimizer",
        )
    return _READERS[kind](options)


def _made_by(factory: object) -> torch.optim.Optimizer:
    """What a factory makes of two small parameters."""
    error: Exception | None = None
    if not callable(factory) or (isinstance(factory, type) and issubclass(factory, Optimizer)):
        got = f"the class {factory.__name__}" if isinstance(factory, type) else repr(factory)
        got = got.partition("\n")[0]
    else:
        parameters = [nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))]
        try:
            made = factory(parameters)
        except Exception as raised:
            made, error = None, raised
        if isinstance(made, torch.optim.Optimizer):
            return made
        got = f"{type(error).__name__}: {error}" if error else f"a factory that returns {made!r}"
    raise InputError(
        need="an optimizer that a step can be traced through, a pure update: weft.AdamW(lr=...), "
        "SGD or Adafactor, or a function that makes one of torch.optim",
        got=got,
        hint="optimizer=weft.AdamW(lr=1e-3), or optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3)",
    ) from error


def _is_decoupled(options: dict[str, Any]) -> bool:
    return bool(options.get("decoupled_weight_decay"))


def _adamw(options: dict[str, Any]) -> Optimizer:
    b1, b2 = options["betas"]
    return AdamW(
        lr=float(options["lr"]),
        betas=(float(b1), float(b2)),
        eps=options["eps"],
        weight_decay=options["weight_decay"],
    )


def _sgd(options: dict[str, Any]) -> Optimizer:
    return SGD(
        lr=float(options["lr"]),
        momentum=float(options["momentum"]),
        weight_decay=float(options["weight_decay"]),
        nesterov=options["nesterov"],
    )


def _adafactor(options: dict[str, Any]) -> Optimizer:
    fields = ("beta2_decay", "eps", "d", "weight_decay")
    return Adafactor(lr=float(options["lr"]), **{f: options[f] for f in fields})


_READERS: dict[type[torch.optim.Optimizer], Callable[[dict[str, Any]], Optimizer]] = {
    torch.optim.AdamW: _adamw,
    torch.optim.Adam: _adamw,
    torch.optim.SGD: _sgd,
    torch.optim.Adafactor: _adafactor,
}
