"""Random regions of element-wise operators, reductions and moves, with tensors to run them on.

A region grows from a few sizes, so that its values fit each other. Operands of an operator have
one element type, and values that no output depends on are left out, as capture leaves them.
"""

from __future__ import annotations

import math

from hypothesis import strategies as st

from tests.property.fused_case import Case, Given, rebuilt
from weft.core.errors import VerifyError
from weft.program.builder import Builder
from weft.program.graph import Role, Value
from weft.program.promotion import broadcast
from weft.program.random import row_major_strides
from weft.program.types import DType, TensorType

SIZES = (1, 2, 3, 4, 6, 8, 16, 17, 32, 33, 64, 257)
MOST = 6000  # elements of a tensor
FLOATS = (DType.F32, DType.F32, DType.F32, DType.F32, DType.BF16, DType.F16, DType.F64)
WHOLE = (DType.I64, DType.I32, DType.U8)

UNARY = (
    *("neg", "abs", "sign", "sqrt", "rsqrt", "reciprocal", "exp", "log", "log1p", "sin", "cos"),
    *("tanh", "erf", "sigmoid", "relu", "gelu", "silu", "floor", "logical_not"),
)
BINARY = (
    *("add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor", "maximum.default"),
    *("minimum.default", "tanh_backward.default", "sigmoid_backward.default"),
    *("silu_backward.default", "gelu_backward.default", "threshold_backward.default"),
)
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
LOGICAL = (
    *("logical_and.default", "logical_or.default", "logical_not.default", "bitwise_and.Tensor"),
    *("bitwise_or.Tensor", "bitwise_not.default", "eq.Tensor", "ne.Tensor"),
)
NUMBERS = (0.5, 2.0, -1.5, 0.25, 3.0, 0.0, 1.0)
EXPONENTS = (2.0, 3.0, 4.0, 0.5, -0.5, -1.0, -2.0, 1.0, 1.5, 0.0)


class Grower:
    """Adds operators to a program at random."""

    def __init__(self, draw) -> None:
        self.draw = draw
        self.builder = Builder("region")
        self.values: list[Value] = []
        self.inputs: list[Value] = []
        self.strides: list[tuple[int, ...]] = []
        self.given: list[Given] = []
        self.sizes = draw(st.lists(st.sampled_from(SIZES), min_size=2, max_size=3))
        self.float = draw(st.sampled_from(FLOATS))

    # --- what there is ---------------------------------------------------------------------

    def type_of(self, value):
        return self.builder.type_of(value)

    def shape(self, value):
        return self.type_of(value).shape

    def one_of(self, *options):
        return self.draw(st.sampled_from(options))

    def chance(self, percent):
        return self.draw(st.integers(0, 99)) < percent

    def add(self, op, *args):
        value = self.builder.add(op, *args)
        self.values.append(value)
        return value

    def any_value(self):
        """One of all values, of late ones more often."""
        late = self.values[-4:]
        return self.one_of(*late) if self.chance(60) else self.one_of(*self.values)

    def cast(self, value, dtype):
        return value if self.type_of(value).dtype is dtype else self.add("cast", value, dtype.value)

    def float_value(self):
        value = self.any_value()
        return value if self.type_of(value).dtype.is_float else self.cast(value, self.float)

    def mask(self):
        value = self.any_value()
        if self.type_of(value).dtype is DType.BOOL:
            return value
        return self.add(f"{self.one_of(*COMPARISONS)}.Scalar", value, self.one_of(0, 1))

    # --- inputs ----------------------------------------------------------------------------

    def new_shape(self, most=4):
        shape: tuple[int, ...] = ()
        for _ in range(self.draw(st.integers(0, most))):
            size = 1 if self.chance(10) else self.one_of(*self.sizes)
            shape = (*shape, size) if math.prod((*shape, size)) <= MOST else shape
        return shape

    def input(self, shape, dtype, below=0):
        """A new input; it may lie in the memory of another."""
        number = len(self.given)
        given = Given(memory=number, offset=0, below=below)
        alike = [
            other
            for value, other in zip(self.inputs, self.given, strict=True)
            if self.type_of(value).dtype is dtype and not other.below
        ]
        if alike and not below and self.chance(15):
            offset = self.draw(st.integers(0, 3))
            given = Given(memory=self.one_of(*alike).memory, offset=offset)
        self.given.append(given)
        self.strides.append(self.laid_out(shape))
        value = self.builder.input(f"in{number}", Role.BATCH, TensorType(dtype, shape))
        self.inputs.append(value)
        self.values.append(value)
        return value

    def laid_out(self, shape):
        """Strides: mostly in rows; else of permuted dims, with gaps, or of repeated rows."""
        if self.chance(60):
            return row_major_strides(shape)
        order = self.draw(st.permutations(range(len(shape))))
        strides, step = [0] * len(shape), 1
        for dim in order:
            strides[dim] = step
            step *= shape[dim] * (2 if self.chance(15) else 1)
            if self.chance(10):
                strides[dim] = 0
        return tuple(strides)

    def dense(self, shape):
        """Strides of an output: of permuted dims."""
        if self.chance(70):
            return row_major_strides(shape)
        order = self.draw(st.permutations(range(len(shape))))
        rows = row_major_strides(tuple(shape[d] for d in order))
        return tuple(rows[order.index(d)] for d in range(len(shape)))

    # --- partners --------------------------------------------------------------------------

    def partner(self, value):
        """A value of the same type that can be broadcast with another."""
        of = self.type_of(value)
        fitting = [v for v in self.values if self.fits(of.shape, self.shape(v))]
        if fitting and self.chance(80):
            return self.cast(self.one_of(*fitting), of.dtype)
        kept = of.shape[self.draw(st.integers(0, len(of.shape))) :]
        return self.input(tuple(1 if self.chance(20) else n for n in kept), of.dtype)

    @staticmethod
    def fits(one, other):
        try:
            return math.prod(broadcast(one, other)) <= MOST
        except VerifyError:
            return False

    # --- operators -------------------------------------------------------------------------

    def unary(self):
        op = f"{self.one_of(*UNARY)}.default"
        value = self.float_value()
        words = (self.one_of("none", "tanh"),) if op == "gelu.default" else ()
        return self.add(op, value, *words)

    def scalar(self):
        value = self.float_value()
        kind = self.one_of("add", "sub", "rsub", "mul", "div", "pow", "base", "clamp", "min", "max")
        number = self.one_of(*NUMBERS)
        if kind == "pow":
            return self.add("pow.Tensor_Scalar", value, self.one_of(*EXPONENTS))
        if kind == "base":
            return self.add("pow.Scalar", 2.0, value)
        if kind == "clamp":
            low, high = self.one_of((-0.5, 0.5), (None, 1.0))
            return self.add("clamp.default", value, low, high)
        if kind == "min":
            return self.add("clamp_min.default", value, number)
        if kind == "max":
            return self.add("clamp.default", value, None, number)
        return self.add(f"{kind}.Scalar", value, number)

    def binary(self):
        op, value = self.one_of(*BINARY), self.float_value()
        other = self.partner(value)
        if "backward" not in op:
            pair = (value, other) if self.chance(50) else (other, value)
            return self.add(op, *pair)
        out = broadcast(self.shape(value), self.shape(other))
        pair = [v if self.shape(v) == out else self.add("expand", v, out) for v in (value, other)]
        words = {
            "gelu_backward.default": (self.one_of("none", "tanh"),),
            "threshold_backward.default": (0,),
        }
        return self.add(op, *pair, *words.get(op, ()))

    def whole(self):
        """Integers: what indices and masks are made of."""
        value = self.any_value()
        of = self.type_of(value)
        if of.dtype.is_float or of.dtype in (DType.BOOL, DType.U8):
            value = self.input(of.shape, self.one_of(DType.I64, DType.I32))
        kind = self.one_of("one", "number", "two", "two")
        if kind == "one":
            return self.add(self.one_of("neg.default", "abs.default"), value)
        if kind == "number":
            op = f"{self.one_of('add', 'mul', 'sub', 'rsub')}.Scalar"
            return self.add(op, value, self.one_of(1, 2, -3))
        op = self.one_of("add.Tensor", "sub.Tensor", "mul.Tensor", "maximum.default")
        return self.add(op, value, self.partner(value))

    def convert(self):
        value = self.any_value()
        own = self.type_of(value).dtype
        target = self.one_of(*FLOATS, DType.I64, DType.I32, DType.BOOL)
        if own.is_float and target in WHOLE:
            value = self.add("clamp.default", value, -8.0, 8.0)
        return self.cast(value, target)

    def compare(self):
        value = self.any_value()
        of = self.type_of(value)
        if of.dtype is DType.BOOL:
            op = self.one_of(*LOGICAL)
            return self.add(op, value, *(() if "not" in op else (self.partner(value),)))
        name = self.one_of(*COMPARISONS)
        if self.chance(50):
            number = self.one_of(0, 1, 0.5 if of.dtype.is_float else 2)
            return self.add(f"{name}.Scalar", value, number)
        return self.add(f"{name}.Tensor", value, self.partner(value))

    def choose(self):
        mask = self.mask()
        fitting = [v for v in self.values if self.fits(self.shape(mask), self.shape(v))]
        value = self.one_of(*fitting)
        if self.chance(40) and self.type_of(value).dtype.is_float:
            number = self.one_of(0.0, -math.inf, 1.0)
            return self.add("masked_fill.Scalar", value, mask, number)
        both = broadcast(self.shape(mask), self.shape(value))
        fitting = [v for v in self.values if self.fits(both, self.shape(v))]
        other = self.cast(self.one_of(*fitting), self.type_of(value).dtype)
        pair = (value, other) if self.chance(50) else (other, value)
        return self.add("where.self", mask, *pair)

    def reduce(self):
        value = self.any_value()
        of = self.type_of(value)
        if not of.shape:
            return value
        dims = self.draw(st.sets(st.integers(0, len(of.shape) - 1), min_size=1))
        op = self.one_of("sum", "sum", "amax")
        if op == "sum" and not of.dtype.is_float:
            value = self.cast(value, DType.I64)
        return self.add(op, value, tuple(sorted(dims)), self.chance(50))

    def soft(self):
        """What normalises a row: a value, less its largest, over its sum."""
        value = self.float_value()
        if not self.shape(value):
            return value
        dims = (self.draw(st.integers(0, len(self.shape(value)) - 1)),)
        if self.chance(50):
            raised = self.add("sub.Tensor", value, self.add("amax", value, dims, True))
            value = self.add("exp.default", raised)
        return self.add("div.Tensor", value, self.add("sum", value, dims, True))

    # --- moves -----------------------------------------------------------------------------

    def view(self):
        value = self.any_value()
        shape = self.shape(value)
        kind = self.one_of("merge", "split", "any", "unit")
        if kind == "unit" or not shape:
            at = self.draw(st.integers(0, len(shape)))
            return self.add("view", value, (*shape[:at], 1, *shape[at:]))
        if kind == "merge":
            first = self.draw(st.integers(0, len(shape) - 1))
            last = self.draw(st.integers(first, len(shape) - 1))
            size = math.prod(shape[first : last + 1])
            return self.add("view", value, (*shape[:first], size, *shape[last + 1 :]))
        if kind == "split":
            dim = self.draw(st.integers(0, len(shape) - 1))
            factor = self.one_of(*divisors(shape[dim]))
            split = (shape[dim] // factor, factor)
            return self.add("view", value, (*shape[:dim], *split, *shape[dim + 1 :]))
        left, sizes = math.prod(shape), list[int]()
        while left > 1 and len(sizes) < 3:
            sizes.append(self.one_of(*divisors(left)[1:]))
            left //= sizes[-1]
        return self.add("view", value, (left, *sizes))

    def permute(self):
        value = self.any_value()
        order = self.draw(st.permutations(range(len(self.shape(value)))))
        return self.add("permute", value, tuple(order))

    def expand(self):
        value = self.any_value()
        shape = tuple(self.one_of(*self.sizes) if n == 1 else n for n in self.shape(value))
        wide = (*((self.one_of(*self.sizes),) if self.chance(50) else ()), *shape)
        fitting = [s for s in (wide, shape) if math.prod(s) <= MOST]
        return self.add("expand", value, fitting[0]) if fitting else value

    def dim_of(self, value):
        return self.draw(st.integers(0, len(self.shape(value)) - 1))

    def bounds(self, size):
        start = self.draw(st.integers(0, size - 1))
        end = self.draw(st.integers(start + 1, size))
        if self.chance(30) and size % 2 == 0:
            start, end = self.one_of((0, size // 2), (size // 2, size))
        return start, end, self.one_of(1, 1, 1, 2, 3)

    def slice(self):
        value = self.any_value()
        if not self.shape(value):
            return value
        dim = self.dim_of(value)
        return self.add("slice", value, dim, *self.bounds(self.shape(value)[dim]))

    def slice_backward(self):
        value = self.any_value()
        shape = self.shape(value)
        if not shape:
            return value
        dim = self.dim_of(value)
        step = self.one_of(1, 1, 1, 2)
        start = self.draw(st.integers(0, 3))
        reach = start + (shape[dim] - 1) * step + 1
        size = reach + self.draw(st.integers(0, 3))
        whole = (*shape[:dim], size, *shape[dim + 1 :])
        if math.prod(whole) > MOST:
            return value
        return self.add("slice_backward", value, whole, dim, start, reach, step)

    def cat(self):
        value = self.any_value()
        shape = self.shape(value)
        if not shape:
            return value
        dim, dtype = self.dim_of(value), self.type_of(value).dtype
        parts = [value]
        if self.chance(40) and shape[dim] > 1:  # halves the other way round
            cut = shape[dim] // 2
            if self.chance(50):
                cut = self.draw(st.integers(1, shape[dim] - 1))
            first = self.add("slice", value, dim, 0, cut, 1)
            last = self.add("slice", value, dim, cut, shape[dim], 1)
            parts = [self.add("neg.default", last) if dtype.is_float else last, first]
        for _ in range(self.draw(st.integers(0, 2))):
            alike = [v for v in self.values if self.same_but(self.shape(v), shape, dim)]
            parts.append(self.cast(self.one_of(*alike), dtype))
        if sum(self.shape(v)[dim] for v in parts) * math.prod(shape) // shape[dim] > MOST:
            return value
        return self.add("cat", tuple(parts), dim)

    @staticmethod
    def same_but(one, other, dim):
        if len(one) != len(other):
            return False
        return (*one[:dim], *one[dim + 1 :]) == (*other[:dim], *other[dim + 1 :])

    def gather(self):
        value = self.any_value()
        shape = self.shape(value)
        if not shape:
            return value
        dim = self.dim_of(value)
        index = [self.draw(st.integers(1, n)) if self.chance(20) else n for n in shape]
        others = math.prod(index) // index[dim]
        index[dim] = self.one_of(*(n for n in (*self.sizes, 1) if others * n <= MOST))
        dtype = self.one_of(DType.I64, DType.I64, DType.I32)
        places = self.input(tuple(index), dtype, below=shape[dim])
        return self.add("gather.default", value, dim, places)

    def create(self):
        if self.chance(50):
            return self.add("full", self.new_shape(2), self.one_of(0.5, 1.0, 0.0), self.float.value)
        size = self.one_of(*self.sizes)
        rows = self.add("iota", size, self.one_of(0, 1, -2), self.one_of(1, 2), DType.I64.value)
        if self.chance(50):
            return rows
        sizes = (n for n in (*self.sizes, 1) if size * n <= MOST)
        other = self.add("iota", self.one_of(*sizes), 0, 1, DType.I64.value)
        return self.add("ge.Tensor", self.add("view", rows, (size, 1)), other)

    GROW = (
        *("unary", "unary", "scalar", "binary", "binary", "binary", "whole", "convert", "compare"),
        *("choose", "reduce", "reduce", "soft", "view", "view", "permute", "expand", "slice"),
        *("slice_backward", "cat", "cat", "gather", "create"),
    )

    def grow(self):
        getattr(self, self.one_of(*self.GROW))()


def divisors(number):
    return [f for f in range(1, number + 1) if number % f == 0]


@st.composite
def cases(draw):
    """A region with tensors for it."""
    grower = Grower(draw)
    for _ in range(draw(st.integers(1, 2))):
        grower.input(grower.new_shape(), grower.float)
    if grower.chance(20):
        grower.input(grower.new_shape(), grower.one_of(*WHOLE, DType.BOOL))
    for _ in range(draw(st.integers(1, 14))):
        grower.grow()
    outputs = [grower.values[-1]]
    outputs += [grower.any_value() for _ in range(draw(st.integers(0, 3)))]
    chosen = tuple(dict.fromkeys(outputs))
    strides = tuple(grower.dense(grower.shape(v)) for v in chosen)
    program = grower.builder.build(chosen[0])
    region, given = rebuilt(program, chosen, grower.strides, grower.given, strides)
    return Case(region=region, given=given, seed=draw(st.integers(0, 999)), wild=grower.chance(25))
