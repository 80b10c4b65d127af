"""Random regions: rows of numbers, normalised, reduced and combined in whatever way."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from weft.fusion.region import Region
from weft.program.builder import Builder
from weft.program.graph import Role, Value
from weft.program.random import row_major_strides
from weft.program.types import DType, TensorType

__all__ = ["random_region"]

UNARY = ("exp.default", "neg.default", "tanh.default", "sigmoid.default", "relu.default")
BINARY = ("add.Tensor", "sub.Tensor", "mul.Tensor", "maximum.default")


@dataclass
class _Drawing:
    """A region that grows; `values` are all [rows, columns] or can be broadcast to that."""

    random: Random
    rows: int
    columns: int
    builder: Builder
    values: list[Value] = field(default_factory=list[Value])
    reduced: list[Value] = field(default_factory=list[Value])

    def any(self) -> Value:
        """A value, a recent one rather than an old one."""
        recent = self.values[-4:]
        return self.random.choice(recent if self.random.random() < 0.7 else self.values)

    def step(self) -> None:
        """One more operator."""
        kind = self.random.random()
        if kind < 0.3:
            self.values.append(self.builder.add(self.random.choice(UNARY), self.any()))
        elif kind < 0.7:
            op = self.random.choice(BINARY)
            self.values.append(self.builder.add(op, self.any(), self.any()))
        else:
            self._reduce()

    def _reduce(self) -> None:
        wide = [
            v for v in self.values if self.builder.type_of(v).shape == (self.rows, self.columns)
        ]
        if not wide:
            return
        dims = self.random.choice([(1,), (1,), (0,), (0, 1)])
        op = self.random.choice(["sum", "sum", "amax"])
        value = self.builder.add(op, self.random.choice(wide[-4:]), dims, True)
        self.reduced.append(value)
        if self.random.random() < 0.7:
            self.values.append(value)


def random_region(seed: int, operators: int, rows: int = 512, columns: int = 768) -> Region:
    """A region of about so many operators; equal seeds give equal regions.

    Args:
        seed: of everything that is drawn.
        operators: number of steps; each adds one operator, or none where none fits.
        rows, columns: of its tensors.
    """
    random = Random(seed)
    builder = Builder(f"random {seed}")
    drawing = _Drawing(random, rows, columns, builder)
    shapes = [(rows, columns)] * random.randint(1, 3) + [(1, columns)] * random.randint(0, 1)
    for number, shape in enumerate(shapes):
        given = builder.input(f"in{number}", Role.BATCH, TensorType(DType.F32, shape))
        drawing.values.append(given)
    for _ in range(operators):
        drawing.step()
    made = [v for v in drawing.values if v.node >= len(shapes)]
    outputs = sorted({*made[-2:], *random.sample(drawing.reduced, min(2, len(drawing.reduced)))})
    if not outputs:
        outputs = [builder.add("neg.default", drawing.values[0])]
    return Region(
        program=builder.build(outputs[0]),
        outputs=tuple(outputs),
        input_strides=tuple(row_major_strides(shape) for shape in shapes),
        output_strides=tuple(row_major_strides(builder.type_of(v).shape) for v in outputs),
    )
