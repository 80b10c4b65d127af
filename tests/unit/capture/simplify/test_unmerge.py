"""Views that merge dims move behind the operators that read them, and mostly vanish."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.unit.capture.simplify.programs import Draft, made, simplified
from weft.capture import SGD, Workload, capture
from weft.program.types import DType

MERGED = ((2, 3, 4), (6, 4))


def shapes_of(program, op):
    return [node.outputs[0].shape for node in made(program, op)]


UNARY = {
    "exp.default": (),
    "_softmax.default": (1, False),
    "cumsum": (1,),
    "gelu.default": ("none",),
}


@pytest.mark.parametrize("op", UNARY)
def test_an_operator_is_applied_to_the_unmerged_tensor(op):
    draft = Draft()
    merged = draft.add("view", draft.input(*MERGED[0]), MERGED[1])
    assert shapes_of(simplified(draft, draft.add(op, merged, *UNARY[op])), op) == [MERGED[0]]


def test_an_operator_along_the_merged_dim_stays():
    draft = Draft()
    merged = draft.add("view", draft.input(*MERGED[0]), MERGED[1])
    made_one = draft.add("_softmax.default", merged, 0, False)
    assert shapes_of(simplified(draft, made_one), "_softmax.default") == [MERGED[1]]


def test_operands_that_merge_alike_are_combined_unmerged():
    draft = Draft()
    a, b = (draft.add("view", draft.input(*MERGED[0]), MERGED[1]) for _ in range(2))
    bias = draft.input(4)
    total = draft.add("add.Tensor", draft.add("sub.Tensor", a, b), bias)
    program = simplified(draft, total)
    assert shapes_of(program, "add.Tensor") == [MERGED[0]]
    assert shapes_of(program, "sub.Tensor") == [MERGED[0]]


def test_an_operand_that_is_not_merged_keeps_the_view():
    draft = Draft()
    merged = draft.add("view", draft.input(*MERGED[0]), MERGED[1])
    total = draft.add("sub.Tensor", merged, draft.input(*MERGED[1]))
    assert shapes_of(simplified(draft, total), "sub.Tensor") == [MERGED[1]]


def test_operands_that_merge_differently_keep_their_views():
    draft = Draft()
    a = draft.add("view", draft.input(2, 6, 4), (12, 4))
    b = draft.add("view", draft.input(3, 4, 4), (12, 4))
    assert shapes_of(simplified(draft, draft.add("sub.Tensor", a, b)), "sub.Tensor") == [(12, 4)]


def test_a_merged_last_dim_stays_merged():
    draft = Draft()
    merged = draft.add("view", draft.input(2, 3, 4), (2, 12))
    program = simplified(draft, draft.add("exp.default", merged))
    assert shapes_of(program, "exp.default") == [(2, 12)]


def test_a_sum_over_a_merged_dim_is_a_sum_over_its_parts():
    draft = Draft()
    merged = draft.add("view", draft.input(*MERGED[0]), MERGED[1])
    program = simplified(draft, draft.add("sum", merged, (0,), False))
    assert made(program, "sum")[0].args[1] == (0, 1)


def test_a_lookup_by_merged_indices_is_a_lookup_by_the_whole():
    draft = Draft()
    table, index = draft.input(3, 5), draft.input(2, 4, dtype=DType.I64)
    found = draft.add("embedding.default", table, draft.add("view", index, (8,)))
    assert shapes_of(simplified(draft, found), "embedding.default") == [(2, 4, 5)]


def test_an_expansion_that_broadcasting_makes_anyway_vanishes():
    draft = Draft()
    wide = draft.add("expand", draft.input(1, 4), (3, 4))
    program = simplified(draft, draft.add("mul.Tensor", draft.input(3, 4), wide))
    assert not made(program, "expand")


def test_an_expansion_that_the_result_needs_stays():
    draft = Draft()
    wide = draft.add("expand", draft.input(1, 4), (3, 4))
    program = simplified(draft, draft.add("mul.Tensor", draft.input(1, 4), wide))
    assert len(made(program, "expand")) == 1


class Flat(nn.Module):
    """Works on [batch * positions] rows throughout, as many models do."""

    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(4), nn.Linear(4, 7)
        self.table = nn.Embedding(7, 4)

    def forward(self, tokens):
        x = self.table(tokens.flatten())
        return self.linear(F.dropout(F.gelu(self.norm(x)), 0.1))


def test_a_step_on_flattened_tokens_keeps_batch_and_position_apart():
    tokens = torch.randint(7, (2, 3))
    program = capture(
        Workload(
            name="flat",
            model=Flat,
            loss=lambda model, batch: F.cross_entropy(model(batch["x"]), batch["x"].flatten()),
            batch=lambda step: {"x": tokens},
            optimizer=SGD(lr=0.1),
        )
    )
    merged = [n for n in program.nodes if any(6 in t.shape for t in n.outputs)]
    assert not merged


@pytest.mark.parametrize("repeated", [0, 1])
def test_a_repeated_dim_may_be_split_and_a_whole_one_may_not(repeated):
    draft = Draft()
    grad = draft.add("view", draft.input(*MERGED[0]), MERGED[1])
    narrow = (1, 4) if repeated == 0 else (6, 1)
    saved = draft.add("expand", draft.input(*narrow), MERGED[1])
    program = simplified(draft, draft.add("threshold_backward.default", grad, saved, 0))
    assert shapes_of(program, "threshold_backward.default") == [MERGED[repeated]]
