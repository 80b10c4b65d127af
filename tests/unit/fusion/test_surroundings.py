"""What of a region Inductor would not write, or not read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from tests.unit.fusion.regions import region
from weft.fusion.cost import Host
from weft.fusion.partition import candidates
from weft.fusion.surroundings import Surroundings, surroundings
from weft.fusion.worth import weigh

HOST = Host(threads=2)


def around(function, *shapes):
    graph = make_fx(function, tracing_mode="fake")(*map(torch.zeros, shapes))
    return [(candidate, surroundings(candidate)) for candidate in candidates(graph)]


def compared(x):
    return x > 0


def compared_dearly(x):
    return x.sigmoid() > 0.5


def compared_after(x, made):
    """A mask, read in front of a product and behind it."""

    def function(x, grad, w):
        mask = made(x)
        product = torch.where(mask, grad, grad * 2) @ w
        return torch.where(mask, x * product, 0.0).sum(0)

    return function


@pytest.mark.parametrize(("made", "again"), [(compared, True), (compared_dearly, False)])
def test_a_mask_that_two_regions_read_is_computed_twice_unless_that_is_dear(made, again):
    (first, before), (second, behind) = around(compared_after(None, made), (8, 8), (8, 8), (8, 8))
    masks = [n for n, node in enumerate(first.outputs) if node.meta["val"].dtype is torch.bool]
    read = [n for n, node in enumerate(second.inputs) if node.meta["val"].dtype is torch.bool]
    assert before.computed_again == frozenset(masks if again else ())
    assert behind.computed_there == frozenset(read if again else ())
    assert behind.unwritten_bools == behind.unwritten_bytes == (64 if again else 0)


def test_one_that_is_returned_is_written():
    def function(x, grad):
        mask = x > 0
        return mask, torch.where(mask, grad, grad * 2)

    ((_, found),) = around(function, (8, 8), (8, 8))
    assert found.computed_again == frozenset()


def test_one_that_a_product_reads_is_written_even_through_a_view():
    def function(x, w):
        made = x.abs() + 1.0
        return made.T @ w, made.neg().exp().sum(0)

    for _, found in around(function, (8, 8), (8, 8)):
        assert found.computed_again == found.computed_there == frozenset()


def test_what_is_looked_up_is_unwritten_where_one_region_reads_it():
    def function(table, rows, x):
        found = torch.embedding(table, rows.long())
        return (found * x).exp().sum(0)

    ((candidate, found),) = around(function, (9, 8), (4,), (4, 8))
    assert found.unwritten_bytes == 4 * 8 * 4
    assert found.unwritten_bools == 0 and found.computed_there == frozenset()
    assert any("embedding" in str(node.target) for node in candidate.inputs)


def test_a_graph_of_little_else_is_hot():
    ((_, alone),) = around(lambda x: (x + 1).exp().sum(0), (8, 8))
    assert alone.is_hot

    def many(x, w):
        for _ in range(20):
            x = x @ w
        return (x + 1).exp().sum(0)

    ((_, among_many),) = around(many, (8, 8), (8, 8))
    assert not among_many.is_hot


def masked(add, x, grad):
    mask = add("gt.Scalar", x, 0.0)
    return mask, add("where.self", mask, grad, add("mul.Scalar", grad, 2.0))


def test_a_region_whose_mask_inductor_does_not_write_gains_less():
    made = region(masked, "f32[256,1024]", "f32[256,1024]")
    mask = frozenset({0})
    written, again = (weigh(made, HOST, Surroundings(computed_again=own)) for own in ((), mask))
    assert written.inductor_s > 2 * again.inductor_s
    assert weigh(made, HOST, Surroundings(computed_again=frozenset({0, 1}))).inductor_s == 0.0


def test_a_mask_that_has_to_be_written_for_a_kernel_counts():
    made = region(
        lambda add, x, mask: add("where.self", mask, x, add("neg.default", x)),
        *("f32[256,1024]", "bool[256,1024]"),
    )
    read = weigh(made, HOST)
    around_it = Surroundings(
        computed_there=frozenset({1}), unwritten_bytes=2**18, unwritten_bools=2**18
    )
    computed = weigh(made, HOST, around_it)
    assert computed.inductor_s < read.inductor_s
    assert computed.call_s > weigh(made, HOST, replace(around_it, unwritten_bools=0)).call_s
