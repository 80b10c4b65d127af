"""Results wanted in one form only are made in it; those wanted in several are made once."""

from __future__ import annotations

from tests.unit.capture.simplify.programs import Draft, made, simplified
from weft.capture.simplify import simplify


def product(draft):
    return draft.add("einsum", "ab,bc->ac", draft.input(2, 3), draft.input(3, 4))


def test_a_product_wanted_transposed_is_made_transposed():
    draft = Draft()
    turned = draft.add("permute", product(draft), (1, 0))
    program = simplified(draft, draft.add("exp.default", turned))
    assert [node.args[0] for node in made(program, "einsum")] == ["ab,bc->ca"]
    assert not made(program, "permute")


def test_a_product_wanted_both_ways_is_made_once():
    draft = Draft()
    both = product(draft)
    turned = draft.add("permute", both, (1, 0))
    program = simplified(draft, draft.add("exp.default", both), draft.add("exp.default", turned))
    assert [node.args[0] for node in made(program, "einsum")] == ["ab,bc->ac"]
    assert len(made(program, "permute")) == 1


def test_a_product_of_a_transposed_product_reads_it_as_it_is():
    draft = Draft()
    turned = draft.add("permute", product(draft), (1, 0))
    second = draft.add("einsum", "ca,ad->cd", turned, draft.input(2, 5))
    program = simplified(draft, second)
    assert [node.args[0] for node in made(program, "einsum")] == ["ab,bc->ac", "ab,ac->bc"]


def test_a_reduction_with_and_without_its_dims_is_one_reduction():
    draft = Draft()
    x = draft.input(2, 3)
    kept = draft.add("sum", x, (1,), True)
    centred = draft.add("sub.Tensor", x, kept)
    program = simplified(draft, centred, draft.add("exp.default", draft.add("view", kept, (2,))))
    assert sum(node.args[1] == (1,) for node in made(program, "sum")) == 1


def test_products_of_different_operands_stay_apart():
    draft = Draft()
    program = simplified(draft, product(draft), product(draft))
    assert len(made(program, "einsum")) == 2


def test_a_product_that_is_a_next_state_is_not_made_twice():
    draft = Draft()
    square = draft.input(3, 3)
    both = draft.add("einsum", "ab,cb->ac", square, draft.input(3, 3))
    turned = draft.add("permute", both, (1, 0))
    loss = draft.add("sum", draft.add("exp.default", turned), (0, 1), False)
    program = simplify(draft.builder.build(loss, ((square, both),)))
    assert len(made(program, "einsum")) == 1
