"""The operators that a probe times one by one, each as the runtime calls it.

Element-wise arithmetic, reductions, normalisations and lookups differ in speed by far more than
their traffic and arithmetic tell: some have no vector form in the library. Those that models
spend time in are measured; the others are priced as plain traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias, cast

import torch
from torch import Tensor

from weft.capture.operators import uniform
from weft.cost.roofline import TRAFFIC, measured_size_bytes
from weft.program.graph import Arg, Value
from weft.program.types import DType, TensorType

__all__ = ["OPERATOR_ITEMS", "operator_run"]

aten = torch.ops.aten

_WIDTH = 256
_OPERATOR_ELEMENTS = (2**10, 2**14, 2**18, 2**21)
_TRAFFIC_ELEMENTS = (2**8, 2**10, 2**12, 2**14, 2**16, 2**18, 2**20, 2**21, 2**22, 2**24)


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

_BY_NAME = {case.op: case for case in _CASES} | {TRAFFIC: _PLAIN}

OPERATOR_ITEMS: tuple[str, ...] = (
    *(f"operator|{case.op}|{n}" for case in _CASES for n in _OPERATOR_ELEMENTS),
    *(f"operator|uniform|{n}" for n in _OPERATOR_ELEMENTS[:-1]),
    *(f"operator|{TRAFFIC}|{n}" for n in _TRAFFIC_ELEMENTS),
)
"""What to measure: name of a curve and number of elements."""


def operator_run(key: str, device: torch.device) -> tuple[float, Callable[[], object]]:
    """Size of an item as curves count it [bytes], and what runs it once."""
    _, name, elements = key.split("|")
    tensors = _tensors(int(elements), device)
    if name == "uniform":
        seed, size = tensors["seed"], tuple(tensors["x"].shape)
        types = (_type(seed),), (_type(tensors["x"]),)
        num_bytes = measured_size_bytes(name, (Value(0), 0, size), *types)
        return num_bytes, lambda: uniform(seed, 0, size)
    case = _BY_NAME[name]
    run = case.run or _overload(case.op)
    given = tuple(_filled(arg, tensors) for arg in case.args)
    made = run(*given)
    outputs = cast("tuple[Tensor, ...]", made if isinstance(made, tuple) else (made,))
    operands = tuple(_type(tensors[letter]) for letter in _letters(case.args, tensors))
    num_bytes = measured_size_bytes(
        case.op, _as_values(case.args, tensors), operands, tuple(_type(x) for x in outputs)
    )
    return num_bytes, lambda: run(*given)


_Given: TypeAlias = "Tensor | Arg | tuple[_Given, ...]"


def _filled(arg: Arg, tensors: dict[str, Tensor]) -> _Given:
    if isinstance(arg, tuple):
        return tuple(_filled(item, tensors) for item in arg)
    return tensors.get(arg, arg) if isinstance(arg, str) else arg


def _letters(args: tuple[Arg, ...], tensors: dict[str, Tensor]) -> list[str]:
    letters: list[str] = []
    for arg in args:
        if isinstance(arg, tuple):
            letters += _letters(arg, tensors)
        elif isinstance(arg, str) and arg in tensors:
            letters.append(arg)
    return letters


def _as_values(args: tuple[Arg, ...], tensors: dict[str, Tensor]) -> tuple[Arg, ...]:
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
def _tensors(num_elements: int, device: torch.device) -> dict[str, Tensor]:
    rows = max(1, num_elements // _WIDTH)
    x = torch.randn(rows, _WIDTH, device=device)
    index = torch.randint(0, _WIDTH, (rows,), device=device)
    return {
        "x": x,
        "y": x.flip(0),
        "p": x.abs() + 0.1,
        # Masks of models come in runs; a random one would measure branch prediction.
        "m": (torch.arange(_WIDTH, device=device) < _WIDTH // 2).expand(rows, -1).clone(),
        "w": torch.randn(_WIDTH, device=device),
        "s": torch.rand(rows, 1, device=device) + 0.1,
        "i": index,
        "j": index[:, None],
        "t": torch.randn(_WIDTH, _WIDTH, device=device),
        "seed": torch.tensor(7, device=device),
    }


def _type(x: Tensor) -> TensorType:
    return TensorType(_DTYPES[x.dtype], tuple(x.shape))


_DTYPES = {
    torch.float32: DType.F32,
    torch.bfloat16: DType.BF16,
    torch.int64: DType.I64,
    torch.bool: DType.BOOL,
}
