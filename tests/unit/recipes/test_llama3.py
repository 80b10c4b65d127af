"""The Llama recipe against its published sizes and against an independent implementation."""

from __future__ import annotations

import pytest
import torch
from llama3 import (
    Config,
    Llama,
    Rotary,
    llama3_8b,
    llama3_8layers,
    llama3_70b,
    llama3_405b,
    llama_tiny,
)
from torch._subclasses import FakeTensorMode

TINY = Config(
    num_layers=2, width=32, num_heads=4, num_kv_heads=2, hidden=48, vocabulary=64, sequence=16
)


# Parameter counts of the published checkpoints.
@pytest.mark.parametrize(
    ("recipe", "parameters"),
    [
        (llama3_8b, 8_030_261_248),
        (llama3_70b, 70_553_706_496),
        (llama3_405b, 405_853_388_800),
    ],
)
def test_published_sizes_are_reached_without_memory(recipe, parameters):
    with FakeTensorMode():
        model = recipe().model()
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_eight_layers_are_the_8b_without_its_other_layers():
    with FakeTensorMode():
        eight, full = (recipe().model() for recipe in (llama3_8layers, llama3_8b))
    dropped = tuple(f"layers.{number}." for number in range(8, 32))
    kept = {n: p.shape for n, p in full.named_parameters() if not n.startswith(dropped)}
    assert {n: p.shape for n, p in eight.named_parameters()} == kept


def test_large_sizes_compute_in_bfloat16_and_keep_float32_copies():
    workload = llama3_8b()
    with FakeTensorMode():
        kinds = {p.dtype for p in workload.model().parameters()}
    assert workload.compute_dtype is torch.bfloat16
    assert kinds == {torch.float32}


def test_logits_equal_those_of_transformers_with_the_same_weights():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    ours = Llama(TINY).double()
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=TINY.vocabulary,
            hidden_size=TINY.width,
            intermediate_size=TINY.hidden,
            num_hidden_layers=TINY.num_layers,
            num_attention_heads=TINY.num_heads,
            num_key_value_heads=TINY.num_kv_heads,
            max_position_embeddings=TINY.sequence,
            rms_norm_eps=TINY.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": TINY.rope_base},
        )
    ).double()
    theirs.load_state_dict(
        {_name_in_transformers(name): value for name, value in ours.state_dict().items()}
    )
    tokens = torch.randint(TINY.vocabulary, (3, TINY.sequence))
    torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=1e-5, atol=1e-6)


def _name_in_transformers(name: str) -> str:
    for ours, theirs in (
        ("tokens", "model.embed_tokens"),
        ("layers", "model.layers"),
        ("attention_norm", "input_layernorm"),
        ("mlp_norm", "post_attention_layernorm"),
        ("attention.query", "self_attn.q_proj"),
        ("attention.key", "self_attn.k_proj"),
        ("attention.value", "self_attn.v_proj"),
        ("attention.out", "self_attn.o_proj"),
        ("mlp.gate", "mlp.gate_proj"),
        ("mlp.up", "mlp.up_proj"),
        ("mlp.down", "mlp.down_proj"),
        ("head", "lm_head"),
    ):
        name = name.replace(ours, theirs)
    return f"model.{name}" if name.startswith("norm") else name


def test_a_token_does_not_see_those_after_it():
    torch.manual_seed(0)
    model = Llama(TINY).double()
    tokens = torch.randint(TINY.vocabulary, (1, TINY.sequence))
    changed = tokens.clone()
    changed[0, 9:] = (changed[0, 9:] + 1) % TINY.vocabulary
    logits, other = model(tokens), model(changed)
    torch.testing.assert_close(logits[:, :9], other[:, :9])
    assert not torch.allclose(logits[:, 9:], other[:, 9:])


def test_rotated_products_depend_on_the_distance_only():
    torch.manual_seed(0)
    rotary = Rotary(TINY).double()
    query, key = (torch.randn(1, 1, 1, TINY.head_width).double() for _ in range(2))
    turned = [rotary(x.expand(1, 1, TINY.sequence, -1))[0, 0] for x in (query, key)]
    products = turned[0] @ turned[1].T
    for distance in range(TINY.sequence):
        diagonal = products.diagonal(distance)
        # Angles are stored in single precision.
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-5)
    assert products[0].std() > 1e-3


def test_the_tiny_size_shares_each_key_head_between_two_query_heads():
    with FakeTensorMode():
        attention = llama_tiny().model().layers[0].attention
    assert attention.query.out_features == 2 * attention.key.out_features
