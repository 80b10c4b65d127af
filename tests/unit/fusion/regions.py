"""Regions built by hand."""

from weft.fusion.region import Region
from weft.program.builder import Builder
from weft.program.graph import Role
from weft.program.random import row_major_strides
from weft.program.types import TensorType


def region(build, *inputs, input_strides=None, output_strides=None):
    """The region that `build(add, *values)` makes of inputs like "f32[2,3]"."""
    builder = Builder("region")
    given = [
        builder.input(f"in{number}", Role.BATCH, TensorType.parse(text))
        for number, text in enumerate(inputs)
    ]
    made = build(builder.add, *given)
    outputs = made if isinstance(made, tuple) else (made,)

    def rows(values):
        return tuple(row_major_strides(builder.type_of(value).shape) for value in values)

    return Region(
        program=builder.build(outputs[0]),
        outputs=outputs,
        input_strides=input_strides or rows(given),
        output_strides=output_strides or rows(outputs),
    )
