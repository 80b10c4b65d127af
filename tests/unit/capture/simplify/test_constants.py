"""Arithmetic with constant tensors becomes arithmetic with numbers, or none."""

from __future__ import annotations

import pytest

from tests.unit.capture.simplify.programs import Draft, made, simplified

FORMS = {
    "add.Tensor": ("add.Scalar", "add.Scalar"),
    "mul.Tensor": ("mul.Scalar", "mul.Scalar"),
    "sub.Tensor": ("sub.Scalar", "rsub.Scalar"),
    "div.Tensor": ("div.Scalar", "reciprocal.default"),
}


@pytest.mark.parametrize("op", FORMS)
@pytest.mark.parametrize("constant_first", [False, True])
def test_a_constant_operand_becomes_a_number(op, constant_first):
    draft = Draft()
    operands = [draft.input(2, 3), draft.add("full", (3,), 2.5, "f64")]
    program = simplified(draft, draft.add(op, *operands[:: -1 if constant_first else 1]))
    assert len(made(program, FORMS[op][constant_first])) == 1
    assert not made(program, op) or op == "mul.Tensor"


def test_a_constant_that_widens_the_result_stays():
    draft = Draft()
    wide = draft.add("add.Tensor", draft.input(3), draft.add("full", (2, 3), 2.5, "f64"))
    assert len(made(simplified(draft, wide), "full")) == 1


@pytest.mark.parametrize(
    ("op", "number"), [("add.Scalar", 0), ("sub.Scalar", 0), ("mul.Scalar", 1), ("div.Scalar", 1)]
)
def test_neutral_numbers_vanish(op, number):
    draft = Draft()
    program = simplified(draft, draft.add("exp.default", draft.add(op, draft.input(3), number)))
    assert not made(program, op)


def test_a_chain_on_a_constant_is_one_constant():
    draft = Draft()
    value = draft.add("full", (), 4.0, "f64")
    for op, number in (("rsub.Scalar", 1.0), ("mul.Scalar", 2.0), ("add.Scalar", 0.5)):
        value = draft.add(op, value, number)
    value = draft.add("neg.default", draft.add("div.Scalar", value, 2.0))
    program = simplified(draft, draft.add("mul.Tensor", draft.input(3), value))
    assert [node.args[1] for node in made(program, "mul.Scalar")] == [2.75]
    assert not made(program, "full")
