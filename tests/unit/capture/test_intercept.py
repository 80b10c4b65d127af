"""Random numbers, attention and batch norm of a model go through weft's own forms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from weft.capture.intercept import FunctionalCalls
from weft.capture.operators import uniform

SEED = torch.tensor(4)
X = torch.randn(50, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_dropout_drops_by_the_numbers_of_its_call_site():
    with FunctionalCalls(SEED):
        first, second = F.dropout(X, 0.3), nn.Dropout(0.3)(X)
    for salt, dropped in enumerate((first, second)):
        kept = uniform(SEED, salt, X.shape) >= 0.3
        torch.testing.assert_close(dropped, torch.where(kept, X / 0.7, 0.0))


def test_dropout_keeps_about_its_share_and_the_mean():
    with FunctionalCalls(SEED):
        dropped = F.dropout(torch.ones(400, 400), 0.25)
    assert (dropped == 0).double().mean() == pytest.approx(0.25, abs=0.01)
    assert dropped.mean() == pytest.approx(1.0, abs=0.01)


def test_dropout_in_evaluation_or_at_zero_is_the_identity():
    with FunctionalCalls(SEED):
        assert F.dropout(X, 0.9, training=False) is X
        assert F.dropout(X, 0.0) is X
        assert not F.dropout(X, 1.0).any()


def test_dropout_in_place_changes_its_operand():
    x = X.clone()
    with FunctionalCalls(SEED):
        out = F.dropout(x, 0.5, inplace=True)
    assert out is x and not torch.equal(x, X)


def test_channel_dropout_drops_whole_channels():
    with FunctionalCalls(SEED):
        dropped = F.dropout2d(torch.ones(8, 16, 3, 3), 0.5)
    assert set(dropped.sum((2, 3)).unique().tolist()) == {0.0, 18.0}


def test_dropout_inside_multi_head_attention_follows_the_seed():
    layer = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
    x = torch.randn(2, 5, 8)

    def run(seed):
        with FunctionalCalls(torch.tensor(seed)):
            return layer(x, x, x, need_weights=False)[0]

    before = torch.get_rng_state()
    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))
    assert torch.equal(before, torch.get_rng_state())


def test_multi_head_attention_without_dropout_keeps_its_values():
    layer = nn.MultiheadAttention(8, 2, batch_first=True).double()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    wanted = layer(x, x, x, need_weights=False)[0]
    with FunctionalCalls(SEED):
        torch.testing.assert_close(layer(x, x, x, need_weights=False)[0], wanted)


def heads(count=4, length=5):
    return torch.randn(
        2, count, length, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(count)
    )


ATTENTION = {
    "plain": (heads(), heads(), {}),
    "causal": (heads(), heads(), {"is_causal": True}),
    "causal, fewer queries": (heads(length=3), heads(), {"is_causal": True}),
    "grouped": (heads(), heads(2), {"enable_gqa": True}),
    "scaled": (heads(), heads(), {"scale": 0.2}),
    "masked": (heads(), heads(), {"attn_mask": torch.ones(5, 5, dtype=torch.bool).tril()}),
    "biased": (heads(), heads(), {"attn_mask": torch.randn(5, 5, dtype=torch.float64)}),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_keeps_its_values(name):
    q, k, options = ATTENTION[name]
    wanted = F.scaled_dot_product_attention(q, k, k + 1.0, **options)
    with FunctionalCalls(SEED):
        found = F.scaled_dot_product_attention(q, k, k + 1.0, **options)
    torch.testing.assert_close(found, wanted)


def test_hidden_keys_have_no_weight():
    mask = torch.tensor([True, False, True, True, True])
    bias = torch.zeros(5, dtype=torch.float64).masked_fill(~mask, -math.inf)
    with FunctionalCalls(SEED):
        by_mask = F.scaled_dot_product_attention(heads(), heads(), heads(), attn_mask=mask)
        by_bias = F.scaled_dot_product_attention(heads(), heads(), heads(), attn_mask=bias)
    torch.testing.assert_close(by_mask, by_bias)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_keeps_its_values_and_its_running_statistics(training):
    ours, theirs = (nn.BatchNorm2d(3).double().train(training) for _ in range(2))
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64) * 2.0 + 1.0
    wanted = theirs(x)
    with FunctionalCalls(SEED):
        found = ours(x)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_one_hot_keeps_its_values():
    index = torch.tensor([[0, 2], [3, 1]])
    with FunctionalCalls(SEED):
        assert torch.equal(F.one_hot(index, 5), torch.nn.functional.one_hot(index, 5))
        assert F.one_hot(index, 5).sum() == 4
