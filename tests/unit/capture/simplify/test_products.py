"""Products have a letter for every dim, whatever views torch puts around them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.unit.capture.harness import applied
from tests.unit.capture.simplify.programs import Draft, made, simplified
from weft.capture import SGD, Workload, capture
from weft.program.graph import Phase

X = torch.randn(2, 3, 4, dtype=torch.float64)


def equations(program, phase=None):
    return [n.args[0] for n in made(program, "einsum") if phase in (None, n.phase)]


def linear(model, x, loss=lambda y: y.square().sum()):
    return capture(
        Workload(
            name="linear",
            model=model,
            loss=lambda model, batch: loss(model(batch["x"])),
            batch=lambda step: {"x": x},
            optimizer=SGD(lr=0.1),
        )
    )


@pytest.mark.parametrize("bias", [False, True])
def test_a_linear_layer_on_three_dims_is_one_product_without_views(bias):
    program = linear(lambda: nn.Linear(4, 5, bias=bias), X.float())
    assert equations(program, Phase.FORWARD) == ["abc,dc->abd"]
    assert equations(program, Phase.BACKWARD) == ["abc,abd->cd"]
    assert not made(program, "view") and not made(program, "permute")


def test_two_layers_multiply_the_gradient_by_the_weight_as_it_is():
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6))
    program = linear(lambda: model, X.float())
    assert set(equations(program, Phase.BACKWARD)) == {"abc,abd->cd", "abc,cd->abd"}
    assert not made(program, "permute")


def test_attention_scores_keep_batch_and_head_apart():
    def attend(w, x):
        q = (x @ w).view(2, 3, 2, 2).transpose(1, 2)
        return torch.softmax(q @ q.transpose(-2, -1), -1) @ q

    found = equations(capture(applied(attend, (4, 4), X)), Phase.FORWARD)
    assert found == ["abc,cd->abd", "abcd,aecd->acbe", "abcd,adbe->abce"]


def test_an_einsum_of_experts_is_the_einsum_that_was_written():
    def dispatch(w, x):
        return torch.einsum("gsec,gsm->egcm", w, x)

    found = equations(capture(applied(dispatch, (2, 3, 2, 5), X)), Phase.FORWARD)
    assert found == ["abcd,abe->cade"]


def test_flattened_features_stay_one_dim_of_the_product():
    program = linear(lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), X.float())
    assert equations(program, Phase.FORWARD) == ["ab,cb->ac"]


def test_a_repeated_batch_dim_is_left_out():
    draft = Draft()
    a, b = draft.input(2, 3, 4), draft.input(4, 5)
    wide = draft.add("expand", draft.add("view", b, (1, 4, 5)), (2, 4, 5))
    program = simplified(draft, draft.add("einsum", "zab,zbc->zac", a, wide))
    assert equations(program) == ["abc,cd->abd"]
    assert not made(program, "expand")


def test_a_repeated_dim_that_only_one_operand_has_stays():
    draft = Draft()
    wide = draft.add("expand", draft.input(1, 4), (3, 4))
    program = simplified(draft, draft.add("einsum", "ab,bc->ac", wide, draft.input(4, 5)))
    assert len(made(program, "expand")) == 1


def test_a_merged_dim_whose_other_operand_is_whole_stays_merged():
    draft = Draft()
    merged = draft.add("view", draft.input(3, 2, 4), (6, 4))
    program = simplified(draft, draft.add("einsum", "ab,ac->bc", merged, draft.input(6, 5)))
    assert equations(program) == ["ab,ac->bc"]


def test_letters_are_named_in_the_order_of_their_use():
    draft = Draft()
    product = draft.add("einsum", "qk,zk->qz", draft.input(2, 3), draft.input(4, 3))
    assert equations(simplified(draft, product)) == ["ab,cb->ac"]


def test_losses_of_flattened_logits_do_not_flatten_the_product():
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 5)

        def forward(self, x):
            return self.linear(x).flatten(0, 1)

    target = torch.arange(6) % 5
    program = linear(Head, X.float(), lambda y: F.cross_entropy(y, target))
    assert equations(program, Phase.FORWARD) == ["abc,dc->abd"]
