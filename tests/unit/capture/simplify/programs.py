"""Programs of one input for the simplifier, and what the reference evaluator makes of them."""

from __future__ import annotations

import numpy as np

from weft.capture.simplify import simplify
from weft.program.builder import Builder
from weft.program.evaluate import evaluate
from weft.program.graph import Role
from weft.program.types import DType, TensorType
from weft.program.verify import verify


class Draft:
    """A builder whose inputs are float64 parameters `x0`, `x1`, ... by shape."""

    def __init__(self):
        self.builder = Builder("draft")
        self.shapes = {}

    def input(self, *shape, dtype=DType.F64):
        name = f"x{len(self.shapes)}"
        self.shapes[name] = (shape, dtype)
        return self.builder.input(name, Role.PARAMETER, TensorType(dtype, shape))

    def add(self, op, *args):
        return self.builder.add(op, *args)

    def shape(self, value):
        return self.builder.type_of(value).shape

    def build(self, *results):
        """A program whose loss weighs every element of every result differently."""
        loss = None
        for result in results:
            shape = self.shape(result)
            count = int(np.prod(shape))
            flat = self.add("view", result, (count,))
            weights = self.add("iota", count, 1.0, 1.0, "f64")
            part = self.add("sum", self.add("mul.Tensor", flat, weights), (0,), False)
            loss = part if loss is None else self.add("add.Tensor", loss, part)
        return self.builder.build(loss)

    def values(self):
        rng = np.random.default_rng(0)
        return {
            name: rng.integers(0, 3, shape) if dtype is DType.I64 else rng.normal(size=shape)
            for name, (shape, dtype) in self.shapes.items()
        }


def simplified(draft, *results):
    """The simplified program, after making sure that it is legal and computes the same."""
    program = draft.build(*results)
    simpler = simplify(program)
    verify(simpler)
    given = draft.values()
    np.testing.assert_allclose(
        evaluate(simpler, given)[0], evaluate(program, given)[0], rtol=1e-12, atol=1e-12
    )
    assert simplify(simpler) == simpler
    return simpler


def made(program, op):
    """The nodes of one operator."""
    return [node for node in program.nodes if node.op == op]
