"""The DeepSeek-V2 recipe against an independent implementation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from deepseek import Config, DeepSeek, Gate, LatentAttention

TINY = Config(
    num_layers=3,
    width=32,
    num_heads=4,
    hidden=16,
    dense_hidden=48,
    num_experts=8,
    latent=16,
    query_latent=24,
    head_width=8,
    rotary_width=4,
    experts_per_token=3,
    routed_scale=2.0,
    vocabulary=64,
    sequence=16,
    group=8,
    capacity_factor=8 / 3,
)


@pytest.mark.parametrize("query_latent", [0, 24])
def test_logits_equal_those_of_transformers_where_nothing_is_dropped(query_latent):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = replace(TINY, query_latent=query_latent)
    ours = DeepSeek(config).double()
    theirs = transformers.DeepseekV2ForCausalLM(_in_transformers(transformers, config)).double()
    theirs.set_experts_implementation("eager")
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    theirs.load_state_dict(_state_of_transformers(ours, config))
    tokens = torch.randint(config.vocabulary, (3, config.sequence))
    torch.testing.assert_close(ours(tokens)[0], theirs(tokens).logits, rtol=1e-4, atol=1e-4)


def _in_transformers(transformers, config: Config):
    return transformers.DeepseekV2Config(
        vocab_size=config.vocabulary,
        hidden_size=config.width,
        intermediate_size=config.dense_hidden,
        moe_intermediate_size=config.hidden,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_heads,
        n_shared_experts=config.num_shared,
        n_routed_experts=config.num_experts,
        routed_scaling_factor=config.routed_scale,
        kv_lora_rank=config.latent,
        q_lora_rank=config.query_latent or None,
        qk_rope_head_dim=config.rotary_width,
        qk_nope_head_dim=config.head_width,
        v_head_dim=config.head_width,
        num_experts_per_tok=config.experts_per_token,
        first_k_dense_replace=1,
        max_position_embeddings=config.sequence,
        rms_norm_eps=config.norm_eps,
    )


def _state_of_transformers(model: DeepSeek, config: Config) -> dict[str, torch.Tensor]:
    state = {
        "model.embed_tokens.weight": model.tokens.weight,
        "model.norm.weight": model.norm.weight,
        "lm_head.weight": model.head.weight,
    }
    for number, layer in enumerate((model.first, *model.layers)):
        path = f"model.layers.{number}"
        state[f"{path}.input_layernorm.weight"] = layer.attention_norm.weight
        attention = _attention(layer.attention, config)
        state |= {f"{path}.self_attn.{name}": value for name, value in attention.items()}
        if number == 0:
            state[f"{path}.post_attention_layernorm.weight"] = layer.mlp_norm.weight
            state |= _mlp(f"{path}.mlp", layer.mlp)
            continue
        state[f"{path}.post_attention_layernorm.weight"] = layer.experts_norm.weight
        experts = layer.experts
        both = torch.cat((experts.gate, experts.up), dim=2)
        state |= _mlp(f"{path}.mlp.shared_experts", experts.shared)
        state[f"{path}.mlp.gate.weight"] = experts.choose.scores.weight
        state[f"{path}.mlp.experts.gate_up_proj"] = both.transpose(1, 2)
        state[f"{path}.mlp.experts.down_proj"] = experts.down.transpose(1, 2)
    return state


def _mlp(path: str, mlp) -> dict[str, torch.Tensor]:
    return {
        f"{path}.{name}_proj.weight": getattr(mlp, name).weight for name in ("gate", "up", "down")
    }


def _attention(attention: LatentAttention, config: Config) -> dict[str, torch.Tensor]:
    if config.query_latent:
        down, norm, up = attention.query
        named = {"q_a_proj.weight": down.weight, "q_a_layernorm.weight": norm.weight}
        query, name = up.weight, "q_b_proj.weight"
    else:
        named, query, name = {}, attention.query.weight, "q_proj.weight"
    heads = query.unflatten(0, (config.num_heads, -1))
    plain, rotated = heads.split((config.head_width, config.rotary_width), dim=1)
    named[name] = torch.cat((plain, _in_pairs(rotated)), dim=1).flatten(0, 1)
    key, value = (
        layer.weight.unflatten(0, (config.num_heads, -1))
        for layer in (attention.key, attention.value)
    )
    rotated_key = _in_pairs(attention.rotated_key.weight[None])[0]
    return named | {
        "kv_a_proj_with_mqa.weight": torch.cat((attention.squeeze.weight, rotated_key)),
        "kv_a_layernorm.weight": attention.latent_norm.weight,
        "kv_b_proj.weight": torch.cat((key, value), dim=1).flatten(0, 1),
        "o_proj.weight": attention.out.weight,
    }


def _in_pairs(rows: torch.Tensor) -> torch.Tensor:
    """Rows of halves that turn together, as neighbours."""
    return rows.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


@pytest.mark.parametrize("factor", [0.5, 1.0, 8 / 3])
def test_weights_are_chances_where_there_is_room_and_0_where_there_is_none(factor):
    config = replace(TINY, capacity_factor=factor)
    torch.manual_seed(2)
    gate = Gate(config).double()
    torch.nn.init.normal_(gate.scores.weight)
    x = torch.randn(4, config.group, config.width).double()
    combine, _ = gate(x)
    chance = gate.scores(x).softmax(dim=-1)
    best = chance.topk(3, dim=-1)
    wanted = torch.zeros_like(combine)
    for group in range(len(x)):
        taken = [0] * config.num_experts
        for choice in range(3):
            for token in range(config.group):
                expert = int(best.indices[group, token, choice])
                if taken[expert] < config.capacity:
                    weight = config.routed_scale * best.values[group, token, choice]
                    wanted[group, token, expert, taken[expert]] = weight
                taken[expert] += 1
    torch.testing.assert_close(combine, wanted)


def test_the_load_loss_counts_a_whole_sequence_not_a_group():
    config = replace(TINY, width=8, num_heads=1, experts_per_token=1, num_experts=8)
    gate = Gate(config)
    with torch.no_grad():
        gate.scores.weight.copy_(100 * torch.eye(8))
    # Each group crowds four experts, other ones in the second group than in the first.
    first = torch.eye(8)[:4].repeat(2, 1)
    second = torch.eye(8)[4:].repeat(2, 1)
    torch.testing.assert_close(gate(torch.stack((first, second)))[1], torch.tensor(1.0))
    torch.testing.assert_close(gate(torch.stack((first, first)))[1], torch.tensor(2.0))


def test_a_group_that_does_not_divide_the_sequence_is_refused():
    with pytest.raises(ValueError, match="groups of 5 do not divide a sequence of 16"):
        replace(TINY, group=5)
