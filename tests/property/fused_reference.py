"""What a region computes, in float64, and how far float32 and narrower types may be from that.

The program is run once as it is and a few times with every result of arithmetic moved by the
rounding error of its element type, up or down at random, or not at all, so that only what may be
anything changes. How far outputs move tells how sensitive they are to rounding, element by element:
a comparison that flips, a difference of large numbers and an exact copy each get the tolerance that
they deserve.
"""

from __future__ import annotations

import math

import numpy as np

from weft.program.evaluate import apply_operator
from weft.program.graph import Program, Value
from weft.program.operators import Kind, operator
from weft.program.types import DType, TensorType

RUNS = 10
TIMES = 8.0  # how many times the largest move that was seen an error may be
ULPS = 4.0  # of one arithmetic operator

EPS = {DType.F64: 2.0**-52, DType.F32: 2.0**-23, DType.BF16: 2.0**-8, DType.F16: 2.0**-10}
TINY = {DType.F64: 1e-307, DType.F32: 2e-38, DType.BF16: 2e-38, DType.F16: 6e-8}
LARGEST = {DType.F64: math.inf, DType.F32: 3.4028235e38, DType.BF16: 3.39e38, DType.F16: 65504.0}
RANGE = {DType.I64: 2.0**62, DType.I32: 2.0**31 - 1, DType.U8: 255.0}

EXACT = frozenset(
    {
        *("neg.default", "abs.default", "sign.default", "relu.default", "maximum.default"),
        *("minimum.default", "clamp.default", "clamp_min.default", "where.self", "floor.default"),
        *("masked_fill.Scalar", "threshold_backward.default", "amax", "full", "iota"),
        *("gather.default", "slice", "slice_backward", "cat"),
    }
)
CUBES = frozenset(
    {
        *("gelu.default", "gelu_backward.default", "silu_backward.default"),
        *("tanh_backward.default", "sigmoid_backward.default"),
    }
)


def expected(program: Program, arrays: list[np.ndarray], outputs: tuple[Value, ...]):
    """Of each output: the values, the largest error that is let pass, and where to look."""
    base, *moved = _all_runs(program, arrays)
    found = []
    for value in outputs:
        own = base[value.node].astype(np.float64)
        runs = np.stack([run[value.node].astype(np.float64) for run in moved])
        alike = runs == own
        if program.type_of(value).dtype.is_float:
            alike |= np.isnan(runs) & np.isnan(own) | np.isfinite(runs) & np.isfinite(own)
        with np.errstate(all="ignore"):
            error = TIMES * np.max(np.nan_to_num(np.abs(runs - own), nan=0.0), axis=0)
        found.append((own, error, alike.all(axis=0)))
    return found


def wrong(got: np.ndarray, own: np.ndarray, error: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """Which elements are further from their value than they may be."""
    got = got.astype(np.float64)
    with np.errstate(all="ignore"):
        close = np.abs(got - own) <= error
    same = (got == own) | np.isnan(got) & np.isnan(own)
    return sure & ~(close | same)


class _Run:
    """One run of a program, node by node.

    Args:
        arrays: what it reads.
        rng: moves results; none to leave them alone.
        rough: whether f16 overflows and small numbers become 0, as they may but need not.
        far: how far it moves them, over what rounding may.
    """

    def __init__(self, arrays, rng=None, *, rough=False, far=0):
        self._given, self.values = iter(arrays), []
        self._rng, self._rough, self._far = rng, rough, far

    def arguments(self, node):
        """What a node reads."""
        return tuple(_filled(arg, self.values) for arg in node.args)

    def take(self, node, unsure):
        """Compute a node; what it makes may be otherwise where that is not sure, if any."""
        of, rng = node.outputs[0], self._rng
        if node.op == "input":
            self.values.append(next(self._given))
            return
        args = self.arguments(node)
        if of.dtype.is_float:
            made = _applied(node.op, args, TensorType(DType.F64, of.shape))
            made = _rounded(node, args, made, rng, rough=self._rough, far=self._far)
        elif of.dtype in RANGE and node.op == "cast" and args[0].dtype.kind == "f":
            made = _whole(args[0], of, rng)
        else:
            made = _applied(node.op, args, of)
        if unsure is not None and rng is not None:
            made = made ^ (unsure & (rng.random(of.shape) < 0.5))
        self.values.append(made)


def _all_runs(program, arrays):
    """Values of all nodes in each run, in that which moves nothing first."""
    runs = [_Run(arrays)]
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        runs.append(_Run(arrays, rng, rough=bool(seed % 2), far=min(seed, 1)))
    for node in program.nodes:
        unsure = None
        if node.op.startswith(("eq.", "ne.")):
            unsure = _crossing([run.arguments(node) for run in runs])
        for run in runs:
            run.take(node, unsure)
    return [run.values for run in runs]


def _crossing(pairs):
    """Where numbers may be equal: one is above the other in one run and below it in another."""
    with np.errstate(all="ignore"):
        signs = [np.sign(np.asarray(a, np.float64) - np.asarray(b, np.float64)) for a, b in pairs]
    known = np.nan_to_num(np.stack(signs))
    return (known.min(0) < 0) & (known.max(0) > 0)


def _applied(op, args, of):
    with np.errstate(all="ignore"):
        if op == "pow.Tensor_Scalar" and abs(args[1]) == 0.5:
            root = np.sqrt(args[0])  # as ATen: of minus infinity it is no number
            return root if args[1] > 0 else 1.0 / root
        if op == "sign.default":
            return np.where(np.isnan(args[0]), 0.0, np.sign(args[0]))  # as ATen
        return apply_operator(op, args, (of,))[0]


def _filled(arg, values):
    if isinstance(arg, Value):
        return values[arg.node]
    return tuple(_filled(a, values) for a in arg) if isinstance(arg, tuple) else arg


def _whole(x, of, rng):
    """Floating-point numbers as integers; what is out of range may be any."""
    fits = np.abs(np.nan_to_num(x, nan=np.inf)) <= RANGE[of.dtype]
    fits &= (x > -1) | (of.dtype is not DType.U8)
    most = int(RANGE[of.dtype])
    number = 0 if rng is None else int(rng.integers(-most * (of.dtype is not DType.U8), most))
    return np.where(fits, np.where(fits, x, 0), number).astype(_DTYPE[of.dtype])


_DTYPE = {DType.I64: np.int64, DType.I32: np.int32, DType.U8: np.uint8}


def _rounded(node, args, made, rng, *, rough, far):
    """A result, moved by about what its element type rounds, and infinite if it is too large."""
    dtype = node.outputs[0].dtype
    half = dtype in (DType.BF16, DType.F16)
    exact = node.op in EXACT or operator(node.op).kind is Kind.VIEW
    if node.op == "cast" and args[0].dtype.kind != "f":
        exact = bool(np.all(np.abs(args[0].astype(np.float64)) <= 256))
        half &= not exact
    if rng is not None and (half or not exact):
        with np.errstate(all="ignore"):
            amount = EPS[dtype] * (ULPS * np.abs(made) + _beyond(node.op, args))
            amount = amount + TINY[dtype] * (made != 0)
            amount = np.where(np.isfinite(made), np.nan_to_num(amount, posinf=0.0), 0.0)
            if exact:
                amount = np.where(made == 0, 0.0, amount)
        way = rng.choice((-1.0, -0.7, 0.6, 1.0), made.shape)
        made = np.where(
            amount * far == 0, made, made + way * far * amount
        )  # -0.0 + 0.0 would be 0.0
        if rough and not exact:
            made = np.where(np.abs(made) < 2.0 * TINY[dtype], np.copysign(0.0, made), made)
            made = np.where(_overflows(node.op, args) & (dtype is not DType.F64), np.nan, made)
    if rough and node.op == "sum":
        made = np.where(made == 0, -0.0, made)  # of nothing but -0.0 it is -0.0, or 0.0 + -0.0
    if dtype is not DType.F16 or rough:
        made = np.where(np.abs(made) > LARGEST[dtype], np.copysign(np.inf, made), made)
    return np.asarray(made)


def _overflows(op, args):
    """Where what an operator computes on the way may be too large for float32."""
    if op in CUBES:
        return np.any([np.abs(a) > 1e12 for a in args if isinstance(a, np.ndarray)], axis=0)
    return False


def _beyond(op, args):
    """Errors inside of an operator that are no multiple of its result [units of rounding]."""
    tensors = [np.abs(a) for a in args if isinstance(a, np.ndarray)]
    if op == "sum":
        x, dims, keepdim = tensors[0].astype(np.float64), args[1], args[2]
        count = math.prod(x.shape[d] for d in dims)
        return (2.0 + math.sqrt(count)) * np.sum(x, axis=dims, keepdims=keepdim)
    if op in ("gelu.default", "silu.default"):
        return 2.0 * tensors[0]
    if op in ("gelu_backward.default", "silu_backward.default"):
        return 4.0 * tensors[0] * (1.0 + tensors[1] + np.minimum(tensors[1], 20.0) ** 3)
    if op in ("tanh_backward.default", "sigmoid_backward.default"):
        return 4.0 * tensors[0] * (1.0 + tensors[1] ** 2)
    return 0.0


def widened(array: np.ndarray) -> np.ndarray:
    """An input as float64, if it holds floating-point numbers."""
    return array.astype(np.float64) if array.dtype.kind == "f" else array
