"""The GPT recipe against an independent implementation."""

from __future__ import annotations

import pytest
import torch
from gpt import GPT, Config, gpt_demo, gpt_tiny

TINY = Config(num_layers=2, width=32, num_heads=4, sequence=16, vocabulary=64)


def test_logits_equal_those_of_transformers_with_the_same_weights():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    ours = GPT(TINY).double()
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=TINY.vocabulary,
            n_positions=TINY.sequence,
            n_embd=TINY.width,
            n_layer=TINY.num_layers,
            n_head=TINY.num_heads,
            activation_function="gelu",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    ).double()
    for parameter in ours.parameters():
        # Biases and norms start as 0 and 1, which would hide a wrong one.
        torch.nn.init.normal_(parameter, std=0.3)
    _copy(ours, theirs)
    tokens = torch.randint(TINY.vocabulary, (3, TINY.sequence))
    torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=1e-9, atol=1e-9)


def _copy(ours, theirs):
    body = theirs.transformer
    pairs = [(body.wte.weight, ours.tokens.weight), (body.wpe.weight, ours.positions)]
    pairs += _linear(body.ln_f, ours.norm)
    for there, here in zip(body.h, ours.layers, strict=True):
        pairs += _linear(there.ln_1, here.attention_norm) + _linear(there.ln_2, here.mlp_norm)
        into = [here.attention.query, here.attention.key, here.attention.value]
        pairs.append((there.attn.c_attn.weight, torch.cat([m.weight.T for m in into], dim=1)))
        pairs.append((there.attn.c_attn.bias, torch.cat([m.bias for m in into])))
        for conv, linear in (
            (there.attn.c_proj, here.attention.out),
            (there.mlp.c_fc, here.mlp.up),
            (there.mlp.c_proj, here.mlp.down),
        ):
            pairs += [(conv.weight, linear.weight.T), (conv.bias, linear.bias)]
    with torch.no_grad():
        for target, source in pairs:
            target.copy_(source)


def _linear(there, here):
    return [(there.weight, here.weight), (there.bias, here.bias)]


def test_a_tied_head_is_the_embedding_and_an_untied_one_is_not():
    tied, untied = (gpt_tiny(tied=t).model() for t in (True, False))
    assert tied.head.weight is tied.tokens.weight
    assert untied.head.weight is not untied.tokens.weight
    assert _size(untied) - _size(tied) == tied.head.weight.numel()


def _size(model):
    return sum(p.numel() for p in model.parameters())


def test_dropout_changes_the_loss_only_where_it_is_asked_for():
    for dropout, same in ((0.0, True), (0.5, False)):
        workload = gpt_tiny(dropout=dropout)
        model, batch = workload.model(), workload.batch(0)
        first, second = (workload.loss(model, batch) for _ in range(2))
        assert torch.equal(first, second) is same


def test_the_demo_is_six_layers_of_width_256():
    model = gpt_demo().model()
    assert len(model.layers) == 6
    assert model.tokens.weight.shape == (256, 256)
