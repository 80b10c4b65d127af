"""The Mixtral recipe against an independent implementation."""

from __future__ import annotations

from dataclasses import replace

import mixtral
import pytest
import torch
from mixtral import Config, Mixtral, mixtral_tiny

from weft.capture import capture
from weft.machine import preset
from weft.parallel.local import Collective, CollectiveKind
from weft.parallel.planning import plan
from weft.parallel.spmd import lower
from weft.program.graph import Phase

TINY = Config(
    num_layers=2,
    width=32,
    num_heads=4,
    num_kv_heads=2,
    hidden=48,
    num_experts=4,
    vocabulary=64,
    sequence=16,
    group=8,
    capacity_factor=2.0,
)


def test_logits_equal_those_of_transformers_where_nothing_is_dropped():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    ours = Mixtral(TINY).double()
    config = transformers.MixtralConfig(
        vocab_size=TINY.vocabulary,
        hidden_size=TINY.width,
        intermediate_size=TINY.hidden,
        num_hidden_layers=TINY.num_layers,
        num_attention_heads=TINY.num_heads,
        num_key_value_heads=TINY.num_kv_heads,
        num_local_experts=TINY.num_experts,
        num_experts_per_tok=TINY.experts_per_token,
        rms_norm_eps=TINY.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": TINY.rope_base},
    )
    theirs = transformers.MixtralForCausalLM(config).double()
    theirs.set_experts_implementation("eager")
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    theirs.load_state_dict(_state_of_transformers(ours))
    tokens = torch.randint(TINY.vocabulary, (3, TINY.sequence))
    torch.testing.assert_close(ours(tokens)[0], theirs(tokens).logits, rtol=1e-4, atol=1e-5)


def _state_of_transformers(model: Mixtral) -> dict[str, torch.Tensor]:
    state = {}
    for name, value in model.state_dict().items():
        if ".experts." not in name or name.endswith("scores.weight"):
            state[_name_in_transformers(name)] = value
    for number, layer in enumerate(model.layers):
        experts = layer.experts
        both = torch.cat((experts.gate, experts.up), dim=2)
        state[f"model.layers.{number}.mlp.experts.gate_up_proj"] = both.transpose(1, 2)
        state[f"model.layers.{number}.mlp.experts.down_proj"] = experts.down.transpose(1, 2)
    return state


def _name_in_transformers(name: str) -> str:
    for ours, theirs in (
        ("tokens", "model.embed_tokens"),
        ("layers", "model.layers"),
        ("attention_norm", "input_layernorm"),
        ("experts_norm", "post_attention_layernorm"),
        ("experts.choose.scores", "mlp.gate"),
        ("attention.query", "self_attn.q_proj"),
        ("attention.key", "self_attn.k_proj"),
        ("attention.value", "self_attn.v_proj"),
        ("attention.out", "self_attn.o_proj"),
        ("head", "lm_head"),
    ):
        name = name.replace(ours, theirs)
    return f"model.{name}" if name.startswith("norm") else name


@pytest.mark.parametrize("factor", [0.25, 1.0, 2.0])
def test_no_place_of_an_expert_is_given_twice_and_room_is_given_to_the_best_choices_first(factor):
    config = replace(TINY, capacity_factor=factor)
    torch.manual_seed(1)
    gate = mixtral.Gate(config).double()
    torch.nn.init.normal_(gate.scores.weight)
    x = torch.randn(5, config.group, config.width).double()
    combine, _ = gate(x)
    best = gate.scores(x).topk(2, dim=-1).indices
    wanted = torch.zeros(combine.shape, dtype=torch.bool)
    for group in range(len(x)):
        taken = [0] * config.num_experts
        for choice in range(2):
            for token in range(config.group):
                expert = int(best[group, token, choice])
                if taken[expert] < config.capacity:
                    wanted[group, token, expert, taken[expert]] = True
                taken[expert] += 1
    assert torch.equal(combine > 0, wanted)


def test_a_group_that_does_not_divide_the_sequence_is_refused():
    with pytest.raises(ValueError, match="groups of 7 do not divide a sequence of 16"):
        replace(TINY, group=7)


def test_the_load_loss_is_1_for_an_even_load_and_more_for_a_crowd():
    config = replace(TINY, width=4, num_heads=1, num_kv_heads=1, group=4)
    gate = mixtral.Gate(config)
    with torch.no_grad():
        gate.scores.weight.copy_(100 * (torch.eye(4) + 0.5 * torch.eye(4).roll(1, 0)))
    crowded = torch.eye(4)[:1].expand(4, 4)[None]
    torch.testing.assert_close(gate(torch.eye(4)[None])[1], torch.tensor(1.0))
    assert gate(crowded)[1] > 1.9


def test_layers_whose_gradients_are_reshaped_are_planned_once_for_all_that_are_alike():
    program = capture(mixtral_tiny(num_layers=6))
    found = plan(program, preset("dgx-h100x1"), mesh=(8,))
    assert found.prediction.step_s > 0
    assert len(found.strategies) == len(program.nodes)


def test_at_published_widths_experts_are_cut_by_expert_with_two_all_to_alls_a_layer():
    config = Config(num_layers=1, width=4096, num_heads=32, num_kv_heads=8, hidden=14_336)
    program = capture(mixtral.mixtral("one layer", config, batch=16))
    found = plan(program, preset("dgx-h100x1"), mesh=(8,))
    stored = {i.name: found.strategies[i.node].outputs[0] for i in program.inputs}
    for weight in ("gate", "up", "down"):
        assert stored[f"layers.0.experts.{weight}"] == (0,)
    sent = [
        program.nodes[item.node].scope
        for item in lower(program, found).instructions
        if isinstance(item, Collective)
        and item.kind is CollectiveKind.ALL_TO_ALL
        and item.phase is Phase.FORWARD
    ]
    assert sent.count("layers.0.experts") == 2
