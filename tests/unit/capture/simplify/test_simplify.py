"""Simplification keeps the meaning of every program and finishes in one form."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.capture import models
from tests.unit.capture.harness import applied
from tests.unit.capture.simplify.programs import Draft, made, simplified
from weft.capture import capture
from weft.capture.simplify import simplify

SIZES = (1, 2, 3, 4)


def regrouped(draw, shape):
    """Another shape of as many elements: every size in factors, then neighbours together."""
    fine = []
    for n in shape:
        whole = len(shape) > 4  # ranks stay small
        cuts = [n] if whole else [d for d in range(1, n + 1) if n % d == 0]
        cut = draw(st.sampled_from(cuts))
        fine += [cut] if whole else [cut, n // cut]
    coarse = []
    for n in fine:
        if coarse and draw(st.booleans()):
            coarse[-1] *= n
        else:
            coarse.append(n)
    return tuple(coarse)


def step(draw, draft, value):
    """One random operator on a value."""
    shape = draft.shape(value)
    rank = len(shape)
    kind = draw(st.sampled_from(STEPS))
    if kind == "view":
        return draft.add("view", value, regrouped(draw, shape))
    if kind == "permute":
        return draft.add("permute", value, tuple(draw(st.permutations(range(rank)))))
    if kind == "expand":
        wide = tuple(draw(st.sampled_from((1, 2))) if n == 1 else n for n in shape)
        lead = draw(st.sampled_from([(), (2,)])) if rank < 6 else ()
        return draft.add("expand", value, (*lead, *wide))
    if kind == "sum" and rank:
        dims = draw(st.sets(st.integers(0, rank - 1), min_size=1))
        return draft.add("sum", value, tuple(sorted(dims)), draw(st.booleans()))
    if kind == "slice" and rank:
        dim = draw(st.integers(0, rank - 1))
        start = draw(st.integers(0, shape[dim] - 1))
        return draft.add("slice", value, dim, start, shape[dim], 1)
    if kind == "softmax" and rank:
        return draft.add("_softmax.default", value, draw(st.integers(0, rank - 1)), False)
    if kind == "constant":
        other = draft.add("full", draw(st.sampled_from([(), shape])), 2.0, "f64")
        op = draw(st.sampled_from(("add.Tensor", "mul.Tensor", "sub.Tensor", "div.Tensor")))
        return draft.add(op, *draw(st.permutations((draft.add("exp.default", value), other))))
    if kind == "other":
        return draft.add("mul.Tensor", value, draft.input(*shape))
    if kind == "product" and rank:
        a, b = draft.input(2, shape[-1]), "abcdefghijklmnop"[:rank]
        return draft.add("einsum", f"{b},z{b[-1]}->{b[:-1]}z", value, a)
    return draft.add("tanh.default", value)


STEPS = (
    *("view", "permute", "expand", "sum", "slice", "softmax", "constant", "other", "product"),
    "tanh",
)


@settings(max_examples=150)
@given(data=st.data())
def test_random_programs_keep_their_meaning(data):
    draft = Draft()
    value = draft.input(*data.draw(st.lists(st.sampled_from(SIZES), min_size=1, max_size=4)))
    results = []
    for _ in range(data.draw(st.integers(1, 8))):
        value = step(data.draw, draft, value)
        if data.draw(st.booleans()):
            results.append(value)
    simplified(draft, *results, value)


@pytest.mark.parametrize("workload", [models.decoder(dropout=0.1), models.conv_net()])
def test_a_simplified_step_stays_as_it_is(workload):
    program = capture(workload)
    assert simplify(program) == program


def test_equal_nodes_of_one_phase_are_made_once():
    draft = Draft()
    x = draft.input(3)
    program = simplified(draft, draft.add("exp.default", x), draft.add("exp.default", x))
    assert len(made(program, "exp.default")) == 1


def test_forward_and_backward_do_not_share_what_they_compute():
    x = torch.randn(4, 6, dtype=torch.float64)
    program = capture(applied(lambda w, x: F.cross_entropy(w * x, x.argmax(1)), (4, 6), x))
    phases = [node.phase for node in made(program, "eq.Tensor")]
    assert len(phases) == 2 and phases[0] is not phases[1]


def test_numbers_that_compare_equal_are_told_apart():
    draft = Draft()
    ones = [draft.add("full", (2,), value, dtype) for value, dtype in ((1, "i64"), (1.0, "f64"))]
    x = draft.input(2)
    total = draft.add("add.Tensor", x, draft.add("cast", ones[0], "f64"))
    simplified(draft, draft.add("exp.default", total), draft.add("tanh.default", ones[1]))
