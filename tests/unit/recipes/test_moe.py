"""The mixture of experts against the definition, token by token."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from moe import Config, Experts, Gate, moe_tiny

CONFIGS = st.builds(
    Config,
    num_layers=st.just(2),
    width=st.just(8),
    num_heads=st.just(2),
    num_experts=st.sampled_from((2, 3, 4)),
    hidden=st.just(16),
    sequence=st.sampled_from((4, 9)),
    experts_per_token=st.sampled_from((1, 2)),
    capacity_factor=st.sampled_from((0.5, 1.0, 4.0)),
)


def _experts(config, seed):
    torch.manual_seed(seed)
    experts = Experts(config).double()
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter)
    return experts, torch.randn(3, config.sequence, config.width).double()


@settings(max_examples=30)
@given(CONFIGS, st.integers(0, 1000))
def test_experts_equal_a_loop_over_tokens(config, seed):
    experts, x = _experts(config, seed)
    out, _ = experts(x)
    torch.testing.assert_close(out, _token_by_token(experts, x, config), rtol=1e-9, atol=1e-9)


def _token_by_token(experts, x, config):
    """First choices take their places in the order of tokens, then second choices do."""
    chance = torch.softmax(experts.gate.scores(x), dim=-1)
    out = torch.zeros_like(x)
    for group in range(len(x)):
        taken = [0] * config.num_experts
        best = chance[group].topk(config.experts_per_token, dim=-1)
        for choice in range(config.experts_per_token):
            for token in range(config.sequence):
                expert = int(best.indices[token, choice])
                if taken[expert] < config.capacity:
                    weight = best.values[token, choice]
                    if config.experts_per_token == 2:
                        weight = weight / best.values[token].sum()
                    hidden = torch.relu(x[group, token] @ experts.up[expert])
                    out[group, token] += weight * (hidden @ experts.down[expert])
                taken[expert] += 1
    return out


@settings(max_examples=30)
@given(CONFIGS, st.integers(0, 1000))
def test_no_place_of_an_expert_is_given_twice(config, seed):
    experts, x = _experts(config, seed)
    combine, _ = experts.gate(x)
    assert combine.shape == (3, config.sequence, config.num_experts, config.capacity)
    assert ((combine > 0).sum(dim=1) <= 1).all()


@settings(max_examples=30)
@given(CONFIGS, st.integers(0, 1000))
def test_with_room_for_all_the_weights_of_a_token_are_its_gate(config, seed):
    experts, x = _experts(config, seed)
    combine, _ = experts.gate(x)
    weights = combine.sum(dim=(2, 3))
    if config.capacity < config.sequence:
        assert (weights <= 1 + 1e-12).all()
    elif config.experts_per_token == 2:
        torch.testing.assert_close(weights, torch.ones_like(weights))
    else:
        chance = torch.softmax(experts.gate.scores(x), dim=-1)
        torch.testing.assert_close(weights, chance.amax(dim=-1))


def test_the_load_loss_is_1_for_an_even_load_and_grows_to_the_number_of_experts():
    config = Config(num_layers=2, width=4, num_heads=1, num_experts=4, hidden=4, sequence=4)
    gate = Gate(config)
    with torch.no_grad():
        gate.scores.weight.copy_(100 * torch.eye(4))
    even = torch.eye(4)[None]
    crowded = torch.eye(4)[:1].expand(4, 4)[None]
    torch.testing.assert_close(gate(even)[1], torch.tensor(1.0))
    torch.testing.assert_close(gate(crowded)[1], torch.tensor(4.0))


def test_every_expert_and_the_gate_learn_from_a_batch():
    workload = moe_tiny()
    torch.manual_seed(0)
    model = workload.model()
    workload.loss(model, workload.batch(0)).backward()
    experts = model.layers[0].experts
    assert (experts.up.grad.abs().sum(dim=(1, 2)) > 0).all()
    assert (experts.gate.scores.weight.grad.abs().sum(dim=1) > 0).all()


def test_three_experts_per_token_are_refused():
    with pytest.raises(ValueError, match="1 or 2 experts, not 3"):
        Config(
            num_layers=2,
            width=4,
            num_heads=1,
            num_experts=4,
            hidden=4,
            sequence=4,
            experts_per_token=3,
        )
