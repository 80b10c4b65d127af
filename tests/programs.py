"""Small training steps built by hand, for tests of whatever reads programs.

`mlp`, `towers`, `transformer`, `mixture`, `with_masters` and `random_inputs` are what tests use.
`Tape` writes forward nodes and remembers how to write their backward; like autograd, it gives sums
of gradients no scope.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from weft.program.builder import Builder
from weft.program.graph import Arg, Phase, Program, Role, Value, compact, map_values
from weft.program.types import DType, TensorType

Gradient = Callable[[Value], None]


class Tape:
    """Writes the forward of a model and, at the end, its backward and update."""

    def __init__(self, name: str, dtype: DType = DType.F32) -> None:
        self.builder = Builder(name)
        self.dtype = dtype
        self.scope = ""
        self.parameters: dict[str, Value] = {}
        self.states: dict[str, dict[str, Value]] = {}
        self._backward: list[tuple[str, Value, Gradient]] = []
        self._gradients: dict[Value, Value] = {}
        self._num_salts = 0

    # Writing nodes.

    def forward(self, op: str, *args: Arg) -> Value:
        return self.builder.add(op, *args, scope=self.scope, source="model.py:1")

    def backward(self, op: str, *args: Arg) -> Value:
        return self.builder.add(op, *args, scope=self.scope, phase=Phase.BACKWARD)

    def shape(self, value: Value) -> tuple[int, ...]:
        return self.builder.type_of(value).shape

    def parameter(self, name: str, *shape: int, slots: tuple[str, ...] = ()) -> None:
        """Declare a parameter and the optimizer state that belongs to it."""
        of = TensorType(self.dtype, shape)
        self.parameters[name] = self.builder.input(name, Role.PARAMETER, of)
        self.states[name] = {
            slot: self.builder.input(f"optimizer.{slot}.{name}", Role.STATE, of, parameter=name)
            for slot in slots
        }

    def differentiate(self, value: Value, gradient: Gradient) -> Value:
        """Remember what to do with the gradient of a forward value."""
        self._backward.append((self.scope, value, gradient))
        return value

    def accumulate(self, value: Value, gradient: Value) -> None:
        """Add to the gradient of a value."""
        known = self._gradients.get(value)
        if known is not None:
            gradient = self.builder.add("add.Tensor", known, gradient, phase=Phase.BACKWARD)
        self._gradients[value] = gradient

    # Layers.

    def linear(self, x: Value, name: str) -> Value:
        """x [B,T,D] times a weight [E,D] -> [B,T,E]."""
        weight = self.parameters[name]

        def gradient(g: Value) -> None:
            self.accumulate(weight, self.backward("einsum", "bte,btd->ed", g, x))
            self.accumulate(x, self.backward("einsum", "bte,ed->btd", g, weight))

        return self.differentiate(self.forward("einsum", "btd,ed->bte", x, weight), gradient)

    def product(self, equation: str, a: Value, b: Value) -> Value:
        """An einsum of two tensors, each letter of which is in two of the three."""
        terms, _, out = equation.partition("->")
        left, right = terms.split(",")

        def gradient(g: Value) -> None:
            self.accumulate(a, self.backward("einsum", f"{out},{right}->{left}", g, b))
            self.accumulate(b, self.backward("einsum", f"{out},{left}->{right}", g, a))

        return self.differentiate(self.forward("einsum", equation, a, b), gradient)

    def relu(self, x: Value) -> Value:
        out = self.forward("relu.default", x)

        def gradient(g: Value) -> None:
            self.accumulate(x, self.backward("threshold_backward.default", g, out, 0))

        return self.differentiate(out, gradient)

    def gelu(self, x: Value) -> Value:
        def gradient(g: Value) -> None:
            self.accumulate(x, self.backward("gelu_backward.default", g, x, "tanh"))

        return self.differentiate(self.forward("gelu.default", x, "tanh"), gradient)

    def add(self, a: Value, b: Value) -> Value:
        def gradient(g: Value) -> None:
            self.accumulate(a, g)
            self.accumulate(b, g)

        return self.differentiate(self.forward("add.Tensor", a, b), gradient)

    def layer_norm(self, x: Value, name: str) -> Value:
        weight, bias = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
        size = self.shape(weight)
        out, mean, rstd = self.builder.add_all(
            "native_layer_norm.default", x, size, weight, bias, 1e-5, scope=self.scope
        )

        def gradient(g: Value) -> None:
            made = self.builder.add_all(
                "native_layer_norm_backward.default",
                *(g, x, size, mean, rstd, weight, bias, (True, True, True)),
                scope=self.scope,
                phase=Phase.BACKWARD,
            )
            for value, part in zip((x, weight, bias), made, strict=True):
                self.accumulate(value, part)

        return self.differentiate(out, gradient)

    def dropout(self, x: Value, seed: Value, rate: float) -> Value:
        random = self.forward("uniform", seed, self._num_salts, self.shape(x))
        self._num_salts += 1
        kept = self.forward("cast", self.forward("ge.Scalar", random, rate), self.dtype.value)
        mask = self.forward("mul.Scalar", kept, 1.0 / (1.0 - rate))

        def gradient(g: Value) -> None:
            self.accumulate(x, self.backward("mul.Tensor", g, mask))

        return self.differentiate(self.forward("mul.Tensor", x, mask), gradient)

    def heads(self, x: Value, num_heads: int) -> Value:
        """[B,T,H*D] -> [B,H,T,D]."""
        b, t, width = self.shape(x)
        split = self.forward("view", x, (b, t, num_heads, width // num_heads))

        def gradient(g: Value) -> None:
            merged = self.backward("permute", g, (0, 2, 1, 3))
            self.accumulate(x, self.backward("view", merged, (b, t, width)))

        return self.differentiate(self.forward("permute", split, (0, 2, 1, 3)), gradient)

    def merge(self, x: Value) -> Value:
        """[B,H,T,D] -> [B,T,H*D]."""
        b, h, t, d = self.shape(x)
        swapped = self.forward("permute", x, (0, 2, 1, 3))

        def gradient(g: Value) -> None:
            split = self.backward("view", g, (b, t, h, d))
            self.accumulate(x, self.backward("permute", split, (0, 2, 1, 3)))

        return self.differentiate(self.forward("view", swapped, (b, t, h * d)), gradient)

    def attention(self, q: Value, k: Value, v: Value) -> Value:
        constants = (True, self.shape(q)[-1] ** -0.5)
        out, logsumexp = self.builder.add_all("attention", q, k, v, *constants, scope=self.scope)

        def gradient(g: Value) -> None:
            made = self.builder.add_all(
                "attention_backward",
                *(g, q, k, v, out, logsumexp, *constants),
                scope=self.scope,
                phase=Phase.BACKWARD,
            )
            for value, part in zip((q, k, v), made, strict=True):
                self.accumulate(value, part)

        return self.differentiate(out, gradient)

    def embedding(self, ids: Value, name: str) -> Value:
        weight = self.parameters[name]
        rows = self.shape(weight)[0]

        def gradient(g: Value) -> None:
            made = self.backward("embedding_dense_backward.default", g, ids, rows, -1, False)
            self.accumulate(weight, made)

        return self.differentiate(self.forward("embedding.default", weight, ids), gradient)

    def mean_square(self, x: Value, target: Value) -> Value:
        scale = 1.0 / float(np.prod(self.shape(x)))
        difference = self.forward("sub.Tensor", x, target)
        square = self.forward("mul.Tensor", difference, difference)
        total = self.forward("sum", square, tuple(range(len(self.shape(x)))))

        def gradient(g: Value) -> None:
            spread = self.backward(
                "expand", self.backward("mul.Scalar", g, 2.0 * scale), self.shape(x)
            )
            self.accumulate(x, self.backward("mul.Tensor", spread, difference))

        return self.differentiate(self.forward("mul.Scalar", total, scale), gradient)

    def cross_entropy(self, logits: Value, target: Value) -> Value:
        """Mean over tokens of [B,T,V] against ids [B,T]."""
        b, t, v = self.shape(logits)
        peak = self.forward("amax", logits, (2,), True)
        shifted = self.forward("sub.Tensor", logits, peak)
        powers = self.forward("exp.default", shifted)
        norm = self.forward("sum", powers, (2,), True)
        classes = self.forward("iota", v, 0, 1, "i64")
        hit = self.forward("eq.Tensor", self.forward("view", target, (b, t, 1)), classes)
        zero = self.forward("full", (), 0.0, self.dtype.value)
        chosen = self.forward("sum", self.forward("where.self", hit, shifted, zero), (2,), True)
        each = self.forward("sub.Tensor", self.forward("log.default", norm), chosen)
        total = self.forward("sum", each, (0, 1, 2))

        def gradient(g: Value) -> None:
            probability = self.backward("div.Tensor", powers, norm)
            indicator = self.backward("cast", hit, self.dtype.value)
            difference = self.backward("sub.Tensor", probability, indicator)
            scale = self.backward("mul.Scalar", g, 1.0 / (b * t))
            self.accumulate(logits, self.backward("mul.Tensor", difference, scale))

        return self.differentiate(self.forward("mul.Scalar", total, 1.0 / (b * t)), gradient)

    # The end.

    def finish(self, loss: Value, rate: float = 0.1) -> Program:
        """Write the backward, then momentum or plain gradient descent, and build."""
        one = self.builder.add("full", (), 1.0, self.dtype.value, phase=Phase.BACKWARD)
        self._gradients[loss] = one
        for scope, value, gradient in reversed(self._backward):
            self.scope = scope
            gradient(self._gradients[value])
        updates: list[tuple[Value, Value]] = []
        for name, parameter in self.parameters.items():
            step = self._gradients[parameter]
            for state in self.states[name].values():
                step = self._update(
                    name, "add.Tensor", self._update(name, "mul.Scalar", state, 0.9), step
                )
                updates.append((state, step))
            scaled = self._update(name, "mul.Scalar", step, -rate)
            updates.append((parameter, self._update(name, "add.Tensor", parameter, scaled)))
        # The gradients of batch entries are of no use.
        return compact(self.builder.build(loss, tuple(updates)))

    def _update(self, name: str, op: str, *args: Arg) -> Value:
        return self.builder.add(op, *args, phase=Phase.UPDATE, scope=f"optimizer.{name}")


def mlp(
    num_layers: int = 2,
    batch: int = 4,
    width: int = 8,
    dtype: DType = DType.F32,
    slots: tuple[str, ...] = (),
    hidden: Callable[[int], int] = lambda layer: 16,
) -> Program:
    """Residual blocks of two products around a relu, mean square loss.

    Parameters are `layers.<l>.up` [hidden(l), width] and `layers.<l>.down`; the batch has `x` and
    `y` [batch, 1, width].
    """
    tape = Tape("mlp", dtype)
    for layer in range(num_layers):
        tape.parameter(f"layers.{layer}.up", hidden(layer), width, slots=slots)
        tape.parameter(f"layers.{layer}.down", width, hidden(layer), slots=slots)
    of = TensorType(dtype, (batch, 1, width))
    x = tape.builder.input("batch.x", Role.BATCH, of)
    y = tape.builder.input("batch.y", Role.BATCH, of)
    for layer in range(num_layers):
        tape.scope = f"layers.{layer}"
        wide = tape.relu(tape.linear(x, f"layers.{layer}.up"))
        x = tape.add(x, tape.linear(wide, f"layers.{layer}.down"))
    tape.scope = "loss"
    return tape.finish(tape.mean_square(x, y))


def towers(
    num_layers: int = 2,
    batch: int = 4,
    width: int = 8,
    dtype: DType = DType.F32,
    slots: tuple[str, ...] = (),
    hidden: tuple[int, ...] = (16, 16),
    *,
    shared: bool = False,
) -> Program:
    """Stacks of residual blocks, computed a block of each in turn, whose results are added.

    Scopes are `left.<l>`, `right.<l>`, with three sizes `third.<l>`, `head`, `loss`. The batch has
    an entry for each side and `y` [batch, 1, width]. With `shared`, every other block of the right
    stack, which is then computed first, reads the weights of the left one.
    """
    tape = Tape("towers", dtype)
    sides = dict(zip(("left", "right", "third"), hidden, strict=False))
    for side, size in sides.items():
        for layer in range(0, num_layers, 2 if shared and side == "right" else 1):
            tape.parameter(f"{side}.{layer}.up", size, width, slots=slots)
            tape.parameter(f"{side}.{layer}.down", width, size, slots=slots)
    tape.parameter("head", width, width, slots=slots)
    of = TensorType(dtype, (batch, 1, width))
    ends = {side: tape.builder.input(f"batch.{side}", Role.BATCH, of) for side in sides}
    y = tape.builder.input("batch.y", Role.BATCH, of)
    for layer in range(num_layers):
        for side in reversed(sides) if shared else tuple(sides):
            tape.scope = f"{side}.{layer}"
            owner = f"left.{layer}" if shared and layer % 2 else tape.scope
            wide = tape.relu(tape.linear(ends[side], f"{owner}.up"))
            ends[side] = tape.add(ends[side], tape.linear(wide, f"{owner}.down"))
    tape.scope = "head"
    all_of_them = tape.linear(reduce(tape.add, ends.values()), "head")
    tape.scope = "loss"
    return tape.finish(tape.mean_square(all_of_them, y))


def transformer(
    num_layers: int = 2,
    batch: int = 2,
    length: int = 4,
    width: int = 8,
    num_heads: int = 2,
    vocabulary: int = 12,
    dtype: DType = DType.F32,
    slots: tuple[str, ...] = (),
    dropout: float = 0.0,
) -> Program:
    """A decoder with layer norm before attention and MLP, causal, next-token loss.

    Scopes are `embed`, `layers.<l>.norm1`, `.attention`, `.norm2`, `.mlp`, `norm`, `head`, `loss`;
    residual sums have the scope of their layer. The batch has `ids` and `target` [batch, length].
    """
    tape = Tape("transformer", dtype)
    tape.parameter("embed.weight", vocabulary, width, slots=slots)
    for layer in range(num_layers):
        _declare_block(tape, f"layers.{layer}", width, slots)
    for name in ("norm.weight", "norm.bias"):
        tape.parameter(name, width, slots=slots)
    tape.parameter("head.weight", vocabulary, width, slots=slots)
    ids = tape.builder.input("batch.ids", Role.BATCH, TensorType(DType.I64, (batch, length)))
    target = tape.builder.input("batch.target", Role.BATCH, TensorType(DType.I64, (batch, length)))
    seed = tape.builder.input("seed", Role.SEED, TensorType(DType.I64, ()))
    tape.scope = "embed"
    x = tape.embedding(ids, "embed.weight")
    for layer in range(num_layers):
        x = _block(tape, x, f"layers.{layer}", num_heads, seed, dropout)
    tape.scope = "norm"
    x = tape.layer_norm(x, "norm")
    tape.scope = "head"
    logits = tape.linear(x, "head.weight")
    tape.scope = "loss"
    return tape.finish(tape.cross_entropy(logits, target))


def mixture(
    num_layers: int = 2,
    batch: int = 4,
    length: int = 4,
    width: int = 8,
    hidden: int = 16,
    num_experts: int = 4,
    room: int = 2,
    dtype: DType = DType.F32,
    slots: tuple[str, ...] = (),
) -> Program:
    """A product, then experts, in residual blocks; who goes where is given with the batch.

    Parameters are `layers.<l>.dense` [width, width], `layers.<l>.up` [num_experts, width, hidden]
    and `layers.<l>.down`; the batch has `x` and `y` [batch, length, width] and `sent`
    [batch, length, num_experts, room].
    """
    tape = Tape("mixture", dtype)
    for layer in range(num_layers):
        tape.parameter(f"layers.{layer}.dense", width, width, slots=slots)
        tape.parameter(f"layers.{layer}.up", num_experts, width, hidden, slots=slots)
        tape.parameter(f"layers.{layer}.down", num_experts, hidden, width, slots=slots)
    of = TensorType(dtype, (batch, length, width))
    x = tape.builder.input("batch.x", Role.BATCH, of)
    y = tape.builder.input("batch.y", Role.BATCH, of)
    sent = tape.builder.input(
        "batch.sent", Role.BATCH, TensorType(dtype, (batch, length, num_experts, room))
    )
    for layer in range(num_layers):
        tape.scope = f"layers.{layer}"
        x = tape.add(x, tape.linear(x, f"layers.{layer}.dense"))
        up, down = (tape.parameters[f"layers.{layer}.{part}"] for part in ("up", "down"))
        given = tape.product("gsec,gsm->egcm", sent, x)
        wide = tape.relu(tape.product("egcm,emh->egch", given, up))
        done = tape.product("egch,ehm->egcm", wide, down)
        x = tape.add(x, tape.product("gsec,egcm->gsm", sent, done))
    tape.scope = "loss"
    return tape.finish(tape.mean_square(x, y))


def with_masters(program: Program) -> Program:
    """The program with a cast of each parameter that is read in its place, but by the update.

    The cast is to the same type, so that what is computed stays the same to the last bit.
    """
    builder = Builder(f"{program.name} with masters")
    made: dict[Value, Value] = {}
    cast: dict[Value, Value] = {}
    for number, node in enumerate(program.nodes):
        source = program.input_by_node.get(number)
        if source is not None:
            (of,) = node.outputs
            value = builder.input(source.name, source.role, of, source.parameter)
            made[Value(number)] = value
            if source.role is Role.PARAMETER:
                cast[Value(number)] = builder.add("cast", value, of.dtype.value)
            continue
        known = made if node.phase is Phase.UPDATE else made | cast
        outputs = builder.add_all(
            node.op,
            *map_values(node.args, lambda value, known=known: known[value]),
            phase=node.phase,
            scope=node.scope,
            source=node.source,
        )
        made.update((Value(number, n), value) for n, value in enumerate(outputs))
    updates = tuple((made[Value(old)], made[new]) for old, new in program.updates)
    return builder.build(made[program.loss], updates)


def _declare_block(tape: Tape, path: str, width: int, slots: tuple[str, ...]) -> None:
    for norm in ("norm1", "norm2"):
        for part in ("weight", "bias"):
            tape.parameter(f"{path}.{norm}.{part}", width, slots=slots)
    for part in ("query", "key", "value", "out"):
        tape.parameter(f"{path}.attention.{part}", width, width, slots=slots)
    tape.parameter(f"{path}.mlp.up", 4 * width, width, slots=slots)
    tape.parameter(f"{path}.mlp.down", width, 4 * width, slots=slots)


def _block(tape: Tape, x: Value, path: str, num_heads: int, seed: Value, dropout: float) -> Value:
    tape.scope = f"{path}.norm1"
    normed = tape.layer_norm(x, f"{path}.norm1")
    tape.scope = f"{path}.attention"
    q, k, v = (
        tape.heads(tape.linear(normed, f"{path}.attention.{part}"), num_heads)
        for part in ("query", "key", "value")
    )
    mixed = tape.linear(tape.merge(tape.attention(q, k, v)), f"{path}.attention.out")
    tape.scope = path
    x = tape.add(x, tape.dropout(mixed, seed, dropout) if dropout else mixed)
    tape.scope = f"{path}.norm2"
    normed = tape.layer_norm(x, f"{path}.norm2")
    tape.scope = f"{path}.mlp"
    wide = tape.gelu(tape.linear(normed, f"{path}.mlp.up"))
    narrow = tape.linear(wide, f"{path}.mlp.down")
    tape.scope = path
    return tape.add(x, narrow)


def random_inputs(program: Program, seed: int = 0) -> Mapping[str, NDArray[np.generic]]:
    """A value for each input: small normal floats, indices 0, 1 or 2, the seed 7."""
    random = np.random.default_rng(seed)
    made: dict[str, NDArray[np.generic]] = {}
    for given in program.inputs:
        of = program.nodes[given.node].outputs[0]
        if given.role is Role.SEED:
            made[given.name] = np.asarray(7, dtype=np.int64)
        elif of.dtype.is_float:
            kind = np.float64 if of.dtype is DType.F64 else np.float32
            made[given.name] = np.asarray(0.5 * random.standard_normal(of.shape), dtype=kind)
        else:
            made[given.name] = np.asarray(random.integers(0, 3, of.shape), dtype=np.int64)
    return made
