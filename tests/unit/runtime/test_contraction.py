"""The product form of an einsum: exact, and free of copies where one is avoidable."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.runtime.contraction import plan_product


@st.composite
def equations(draw):
    sizes = {letter: draw(st.integers(1, 3)) for letter in "abcde"}
    terms = ["".join(draw(st.permutations("abcde"))[: draw(st.integers(0, 4))]) for _ in range(2)]
    letters = sorted(set("".join(terms)))
    out = "".join(draw(st.permutations(letters))[: draw(st.integers(0, len(letters)))])
    shapes = [tuple(sizes[c] for c in term) for term in terms]
    return f"{terms[0]},{terms[1]}->{out}", *shapes


def apply(product, a, b):
    def matrix(operand):
        x = (a, b)[operand.position]
        x = x.sum(operand.summed) if operand.summed else x
        return x.permute(operand.order).reshape(operand.size)

    run = {"mm": torch.mm, "bmm": torch.bmm, "mul": torch.mul}[product.kind]
    return (
        run(matrix(product.left), matrix(product.right))
        .reshape(product.size)
        .permute(product.order)
    )


@settings(max_examples=200)
@given(equations(), st.integers(0, 99))
def test_every_equation_gives_what_einsum_gives(equation, seed):
    text, a_shape, b_shape = equation
    random = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(s, dtype=torch.float64, generator=random) for s in (a_shape, b_shape))
    result = apply(plan_product(text, a_shape, b_shape), a, b)
    expected = torch.einsum(text, a, b)
    assert result.shape == expected.shape
    torch.testing.assert_close(result, expected)


def copies(text, a_shape, b_shape):
    """How many operands have to be copied to become matrices, and whether the result is ordered."""
    product = plan_product(text, a_shape, b_shape)
    count = 0
    for operand in (product.left, product.right):
        x = torch.zeros((a_shape, b_shape)[operand.position])
        made = x.permute(operand.order).reshape(operand.size)
        count += made.data_ptr() != x.data_ptr()
    return product.kind, count, product.order == tuple(range(len(product.order)))


def test_a_linear_layer_and_its_gradients_are_single_products_without_copies():
    x, w, y = (4, 6, 8), (10, 8), (4, 6, 10)
    assert copies("btd,ed->bte", x, w) == ("mm", 0, True)
    assert copies("bte,ed->btd", y, w) == ("mm", 0, True)
    assert copies("btd,bte->ed", x, y) == ("mm", 0, True)
    assert copies("bte,btd->ed", y, x) == ("mm", 0, True)


def test_attention_scores_are_one_batched_product_without_copies():
    q, k = (2, 3, 5, 4), (2, 3, 7, 4)
    assert copies("bhtd,bhsd->bhts", q, k) == ("bmm", 0, True)


def test_where_nothing_is_contracted_it_is_a_multiplication():
    product = plan_product("b,e->be", (3,), (4,))
    assert product.kind == "mul"
    assert product.size == (3, 4)


def test_a_letter_of_one_operand_alone_is_summed_before_the_product():
    product = plan_product("abz,bc->ac", (2, 3, 50), (3, 4))
    assert product.left.summed == (2,)
    assert math.prod(product.left.size) == 6
