"""The operators that a probe times one by one, each as the runtime calls it.

Element-wise arithmetic, reductions, normalisations and lookups differ in speed by far more than
their traffic and arithmetic tell: some have no vector form in the library. Those that models
spend time in are measured; the others are priced as plain traffic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from typing import TypeAlias, cast

import torch
from torch import Tensor

from weft.capture.operators import uniform
from weft.cost.roofline import COLUMN_SUM, TRAFFIC, measured_size_bytes
from weft.program.graph import Arg, Value
from weft.program.types import DType, TensorType

__all__ = ["OPERATOR_ITEMS", "operator_run"]

aten = torch.ops.aten

_WIDTH = 256
_OPERATOR_ELEMENTS = (2**10, 2**14, 2**18, 2**21)
_POOL_BYTES = 2**26
_MOST_SETS = 64
_TRAFFIC_ELEMENTS = (2**8, 2**10, 2**12, 2**14, 2**16, 2**18, 2**20, 2**21, 2**22, 2**24)


_Tensors: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class _Case:
    """An operator on tensors of n elements in rows of `_WIDTH`.

    `args` are its arguments in schema order, in which a letter stands for a tensor: x, y [r, w]
    normal, p [r, w] positive, m [r, w] mask, w [w], s [r, 1] positive, i [r] and j [r, 1]
    indices below w, t [w, w] a table, "seed" a scalar.
    """

    op: str
    args: tuple[Arg, ...]
    run: Callable[..., object] | None = None
    """What runs it, where it has no ATen name or takes a type."""
    curve: str = ""
    """Name of its curve, if that is not the operator's."""

    @property
    def name(self) -> str:
        """Name of its curve."""
        return self.curve or self.op


def _cat(tensors: Sequence[Tensor], dim: int) -> Tensor:
    return aten.cat.default(list(tensors), dim)


_CASES = (
    *(
        _Case(f"{name}.default", ("x",))
        for name in ("neg", "exp", "tanh", "erf", "sigmoid", "relu", "gelu", "silu", "cos", "abs")
    ),
    *(_Case(f"{name}.default", ("p",)) for name in ("sqrt", "rsqrt", "reciprocal", "log")),
    *(_Case(f"{name}.Scalar", ("x", 0.5)) for name in ("add", "mul", "div", "gt")),
    *(_Case(f"{name}.Tensor", ("x", "y")) for name in ("mul", "sub")),
    _Case("div.Tensor", ("x", "p")),
    _Case("maximum.default", ("x", "y")),
    _Case("pow.Tensor_Scalar", ("x", 3.0)),
    _Case("clamp_min.default", ("x", 0.0)),
    _Case("tanh_backward.default", ("x", "y")),
    _Case("sigmoid_backward.default", ("x", "y")),
    _Case("gelu_backward.default", ("x", "y")),
    _Case("silu_backward.default", ("x", "y")),
    _Case("threshold_backward.default", ("x", "y", 0.0)),
    _Case("where.self", ("m", "x", "y")),
    _Case("masked_fill.Scalar", ("x", "m", 0.0)),
    _Case("cast", ("x", "bf16"), lambda x, _: aten.to.dtype(x, torch.bfloat16)),
    _Case("sum", ("x", (1,), True), aten.sum.dim_IntList),
    _Case("sum", ("x", (0,), True), aten.sum.dim_IntList, curve=COLUMN_SUM),
    _Case("amax", ("x", (1,), True), aten.amax.default),
    _Case("cumsum", ("x", 1), aten.cumsum.default),
    _Case("cat", (("x", "y"), 1), _cat),
    _Case("_softmax.default", ("x", 1, False)),
    _Case(
        "_softmax_backward_data.default",
        ("x", "y", 1, "f32"),
        lambda x, y, dim, _: aten._softmax_backward_data.default(x, y, dim, torch.float32),
    ),
    _Case("native_layer_norm.default", ("x", (_WIDTH,), "w", "w", 1e-5)),
    _Case(
        "native_layer_norm_backward.default",
        ("x", "y", (_WIDTH,), "s", "s", "w", "w", (True, True, True)),
    ),
    _Case("embedding.default", ("t", "i")),
    _Case("embedding_dense_backward.default", ("x", "i", _WIDTH, -1, False)),
    _Case("gather.default", ("x", 1, "j")),
    _Case("scatter_add.default", ("x", 1, "j", "s")),
)


_PLAIN = _Case("add.Tensor", ("x", "y"))

_BY_NAME = {case.name: case for case in _CASES} | {TRAFFIC: _PLAIN}

OPERATOR_ITEMS: tuple[str, ...] = (
    *(f"operator|{case.name}|{n}" for case in _CASES for n in _OPERATOR_ELEMENTS),
    *(f"operator|uniform|{n}" for n in _OPERATOR_ELEMENTS[:-1]),
    *(f"operator|{TRAFFIC}|{n}" for n in _TRAFFIC_ELEMENTS),
)
"""What to measure: name of a curve and number of elements."""


def operator_run(key: str, device: torch.device) -> tuple[float, Callable[[], object]]:
    """Size of an item as curves count it [bytes], and what runs it once.

    Calls go round a pool of operands and keep the latest results, as a training step does: what
    an operator reads was made some time ago and has left the inner caches.
    """
    _, name, elements = key.split("|")
    pool = _pool(int(elements), device)
    if name == "uniform":
        calls = [_uniform_call(pool[0])]
        types = (_type(pool[0]["seed"]),), (_type(pool[0]["x"]),)
        num_bytes = measured_size_bytes(name, (Value(0), 0, types[1][0].shape), *types)
    else:
        case = _BY_NAME[name]
        calls = [_call(case, tensors) for tensors in pool]
        num_bytes = _size_bytes(case, pool[0], calls[0]())
    results = deque((call() for call in calls), maxlen=max(1, len(calls) // 2))
    turns = cycle(calls)
    return num_bytes, lambda: results.append(next(turns)())


def _uniform_call(tensors: _Tensors) -> Callable[[], object]:
    seed, size = tensors["seed"], tuple(tensors["x"].shape)
    return lambda: uniform(seed, 0, size)


def _call(case: _Case, tensors: _Tensors) -> Callable[[], object]:
    run = case.run or _overload(case.op)
    given = tuple(_filled(arg, tensors) for arg in case.args)
    return lambda: run(*given)


def _size_bytes(case: _Case, tensors: _Tensors, made: object) -> float:
    outputs = cast("tuple[Tensor, ...]", made if isinstance(made, tuple) else (made,))
    operands = tuple(_type(tensors[letter]) for letter in _letters(case.args, tensors))
    return measured_size_bytes(
        case.op, _as_values(case.args, tensors), operands, tuple(_type(x) for x in outputs)
    )


_Given: TypeAlias = "Tensor | Arg | tuple[_Given, ...]"


def _filled(arg: Arg, tensors: _Tensors) -> _Given:
    if isinstance(arg, tuple):
        return tuple(_filled(item, tensors) for item in arg)
    return tensors.get(arg, arg) if isinstance(arg, str) else arg


def _letters(args: tuple[Arg, ...], tensors: _Tensors) -> list[str]:
    letters: list[str] = []
    for arg in args:
        if isinstance(arg, tuple):
            letters += _letters(arg, tensors)
        elif isinstance(arg, str) and arg in tensors:
            letters.append(arg)
    return letters


def _as_values(args: tuple[Arg, ...], tensors: _Tensors) -> tuple[Arg, ...]:
    """Arguments with a value of its own for each tensor."""
    letters = list(tensors)
    return tuple(
        _as_values(arg, tensors)
        if isinstance(arg, tuple)
        else Value(letters.index(arg))
        if isinstance(arg, str) and arg in tensors
        else arg
        for arg in args
    )


def _overload(op: str) -> Callable[..., object]:
    packet, _, overload = op.partition(".")
    return getattr(getattr(aten, packet), overload)


@cache
def _pool(num_elements: int, device: torch.device) -> tuple[_Tensors, ...]:
    """Operands of that size, over and over until no cache holds them all."""
    count = min(_MOST_SETS, max(1, _POOL_BYTES // (4 * num_elements)))
    rows = max(1, num_elements // _WIDTH)
    x = torch.randn(count, rows, _WIDTH, device=device)
    index = torch.randint(0, _WIDTH, (count, rows), device=device)
    whole = {
        "x": x,
        "y": x.flip(0, 1),
        "p": x.abs() + 0.1,
        # Masks of models come in runs; a random one would measure branch prediction.
        "m": (torch.arange(_WIDTH, device=device) < _WIDTH // 2).expand(count, rows, -1).clone(),
        "w": torch.randn(count, _WIDTH, device=device),
        "s": torch.rand(count, rows, 1, device=device) + 0.1,
        "i": index,
        "j": index[..., None],
        "t": torch.randn(count, _WIDTH, _WIDTH, device=device),
        "seed": torch.full((count,), 7, device=device),
    }
    return tuple({letter: x[n] for letter, x in whole.items()} for n in range(count))


def _type(x: Tensor) -> TensorType:
    return TensorType(_DTYPES[x.dtype], tuple(x.shape))


_DTYPES = {
    torch.float32: DType.F32,
    torch.bfloat16: DType.BF16,
    torch.int64: DType.I64,
    torch.bool: DType.BOOL,
}
