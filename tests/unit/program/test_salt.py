"""Salts tell random calls of a step apart, and nothing else."""

from __future__ import annotations

from weft.program.builder import Builder
from weft.program.graph import Role
from weft.program.salt import salt_of, unsalted, with_salt
from weft.program.types import DType, TensorType


def drawn():
    builder = Builder("draws")
    seed = builder.input("seed", Role.SEED, TensorType(DType.I64, ()))
    first = builder.add("uniform", seed, 3, (4, 2))
    second = builder.add("uniform_part", seed, seed, 5, (4, 2), 0, 2)
    total = builder.add("sum", builder.add("add.Tensor", first, second), (0, 1))
    return builder.build(total).nodes


def test_only_what_draws_has_a_salt() -> None:
    assert [salt_of(node) for node in drawn()] == [None, 3, 5, None, None]


def test_a_later_call_differs_in_its_salt_alone() -> None:
    for node in drawn()[1:3]:
        later = with_salt(node, 2)
        assert (salt_of(node), salt_of(later)) in ((3, 5), (5, 7))
        assert later.args != node.args
        assert unsalted(later) == unsalted(node)


def test_what_draws_nothing_keeps_all_of_its_arguments() -> None:
    *_, add, total = drawn()
    assert unsalted(add) == add.args
    assert unsalted(total) == total.args
