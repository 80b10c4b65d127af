"""Stages are alike where they compute the same, whichever random numbers they draw."""

from __future__ import annotations

from weft.parallel.pipeline.alike import representatives
from weft.program.builder import Builder
from weft.program.graph import Program, Role
from weft.program.types import DType, TensorType


def dropping(salt: int, name: str = "x", rate: float = 0.5) -> Program:
    builder = Builder(f"stage {salt}")
    x = builder.input(name, Role.BATCH, TensorType(DType.F32, (4, 2)))
    seed = builder.input("seed", Role.SEED, TensorType(DType.I64, ()))
    noise = builder.add("uniform", seed, salt, (4, 2))
    kept = builder.add("mul.Tensor", x, builder.add("mul.Scalar", noise, rate))
    return builder.build(builder.add("sum", kept, (0, 1)))


def test_salts_and_names_do_not_matter() -> None:
    assert representatives([dropping(0), dropping(1), dropping(2, name="y")]) == (0, 0, 0)


def test_constants_do() -> None:
    assert representatives([dropping(0), dropping(0, rate=0.25)]) == (0, 1)
