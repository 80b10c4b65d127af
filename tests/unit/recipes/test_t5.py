"""The T5 recipe against an independent implementation."""

from __future__ import annotations

import pytest
import torch
from t5 import T5, Config, buckets, t5_tiny

TINY = Config(
    num_layers=2,
    width=32,
    num_heads=4,
    head_width=16,
    hidden=48,
    vocabulary=64,
    source=24,
    target=17,
    buckets=8,
    max_distance=12,
)


def test_logits_equal_those_of_transformers_with_the_same_weights():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    ours = T5(TINY).double()
    config = transformers.T5Config(
        vocab_size=TINY.vocabulary,
        d_model=TINY.width,
        d_kv=TINY.head_width,
        d_ff=TINY.hidden,
        num_layers=TINY.num_layers,
        num_heads=TINY.num_heads,
        relative_attention_num_buckets=TINY.buckets,
        relative_attention_max_distance=TINY.max_distance,
        dropout_rate=0.0,
    )
    theirs = transformers.T5ForConditionalGeneration(config).double()
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    names = {_name_in_transformers(name): value for name, value in ours.state_dict().items()}
    tied = {f"{side}.embed_tokens.weight": ours.tokens.weight for side in ("encoder", "decoder")}
    theirs.load_state_dict(names | tied | {"lm_head.weight": ours.tokens.weight})
    source = torch.randint(TINY.vocabulary, (3, TINY.source))
    target = torch.randint(TINY.vocabulary, (3, TINY.target))
    wanted = theirs(input_ids=source, decoder_input_ids=target).logits
    torch.testing.assert_close(ours(source, target), wanted, rtol=1e-5, atol=1e-6)


def _name_in_transformers(name: str) -> str:
    mlp = "layer.2" if name.startswith("decoder") else "layer.1"
    for ours, theirs in (
        ("tokens.weight", "shared.weight"),
        ("mlp.up", f"{mlp}.DenseReluDense.wi"),
        ("mlp.down", f"{mlp}.DenseReluDense.wo"),
        ("bias.biases", "block.0.layer.0.SelfAttention.relative_attention_bias"),
        ("layers", "block"),
        ("attention_norm", "layer.0.layer_norm"),
        ("own_norm", "layer.0.layer_norm"),
        ("cross_norm", "layer.1.layer_norm"),
        ("mlp_norm", f"{mlp}.layer_norm"),
        ("attention.", "layer.0.SelfAttention."),
        ("own.", "layer.0.SelfAttention."),
        ("cross.", "layer.1.EncDecAttention."),
        ("query", "q"),
        ("key", "k"),
        ("value", "v"),
        ("out", "o"),
    ):
        name = name.replace(ours, theirs)
    return name.replace("coder.norm", "coder.final_layer_norm")


def test_near_distances_have_buckets_of_their_own_and_far_ones_share_the_last():
    distance = -torch.arange(200)
    found = buckets(distance, 32, 128, causal=True)
    assert found[:16].tolist() == list(range(16))
    assert (found.diff() >= 0).all()
    assert set(found[128:].tolist()) == {31}
    assert set(buckets(-distance, 32, 128, causal=True).tolist()) == {0}


def test_with_both_directions_keys_before_and_after_have_other_buckets():
    distance = torch.arange(1, 200)
    after = buckets(distance, 32, 128, causal=False)
    before = buckets(-distance, 32, 128, causal=False)
    assert torch.equal(after, before + 16)


def test_a_batch_holds_the_text_with_a_mark_where_the_target_has_the_span():
    workload = t5_tiny()
    batch = workload.batch(5)
    source, following = batch["source"], batch["next"]
    first = source == 257
    assert (first.sum(dim=1) == 1).all()
    assert (following[:, 0] == 257).all()
    assert (following[:, -1] == 256).all()
    place = int(first[0].nonzero())
    rest = torch.cat((source[:, :place], following[:, 1:-1], source[:, place + 1 :]), dim=1)
    text = bytes(rest[0].tolist()).decode()
    assert text.isprintable() or "\n" in text
    assert torch.equal(batch["target"][:, 1:], following[:, :-1])
