"""The programs that tests are made of have true gradients, by finite differences."""

import numpy as np
import pytest

from tests.programs import mlp, random_inputs, transformer
from weft.program.evaluate import evaluate
from weft.program.graph import Role
from weft.program.types import DType

RATE = 0.1
PROGRAMS = {
    "mlp": mlp(2, dtype=DType.F64),
    "transformer": transformer(2, dtype=DType.F64, dropout=0.2),
}
CASES = [
    (name, given.name)
    for name, program in PROGRAMS.items()
    for given in program.inputs
    if given.role is Role.PARAMETER
]


@pytest.mark.parametrize(("name", "parameter"), CASES)
def test_the_step_follows_the_slope_of_the_loss(name, parameter):
    program, size = PROGRAMS[name], 1e-5
    inputs = dict(random_inputs(program))
    gradient = (inputs[parameter] - evaluate(program, inputs)[1][parameter]) / RATE
    direction = np.random.default_rng(1).normal(size=gradient.shape)

    def loss(distance):
        moved = inputs[parameter] + distance * direction
        return evaluate(program, {**inputs, parameter: moved})[0]

    slope = (loss(size) - loss(-size)) / (2 * size)
    assert slope == pytest.approx(float(np.sum(gradient * direction)), rel=1e-6, abs=1e-9)
