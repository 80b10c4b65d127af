"""The network against its formulas, node by node in numpy."""

from __future__ import annotations

import sys
import tempfile

import numpy as np
import pytest
import torch

from weft.parallel.mcts.features import (
    CHOICE_WIDTH,
    DEVICE_WIDTH,
    OPERATOR_WIDTH,
    PLACE_WIDTH,
    Observation,
)
from weft.parallel.mcts.network import PriorNetwork, graph_of

WIDTH, HEADS, LAYERS = 12, 3, 2
OPERATORS, DEVICES, CHOICES = 7, 4, 5


def observation(seed=0):
    """Numbers at random: no links or tensors that are alike both ways, an operator on its own."""
    draw = np.random.default_rng(seed)
    tensors = np.where(draw.random((OPERATORS, OPERATORS)) < 0.4, draw.random((7, 7)), 0.0)
    np.fill_diagonal(tensors, 0.0)
    tensors[3] = tensors[:, 3] = 0.0
    return Observation(
        operators=draw.random((OPERATORS, OPERATOR_WIDTH)),
        devices=draw.random((DEVICES, DEVICE_WIDTH)),
        tensors=tensors,
        links=draw.random((DEVICES, DEVICES)),
        places=draw.random((OPERATORS, DEVICES, PLACE_WIDTH)),
        turn=2,
        methods=np.eye(CHOICE_WIDTH)[draw.integers(CHOICE_WIDTH, size=CHOICES)],
        parts=draw.integers(2, size=(CHOICES, DEVICES, 2)).astype(float),
    )


def network(seed=0):
    """All its weights at random, those of norms too."""
    torch.manual_seed(seed)
    made = PriorNetwork(WIDTH, HEADS, LAYERS).eval().requires_grad_(requires_grad=False)
    for weight in made.parameters():
        weight.copy_(torch.randn(weight.shape) / 2)
    return made


class Formulas:
    """What the docstring of the network says, one node at a time."""

    def __init__(self, made):
        self.weights = {name: w.double().numpy() for name, w in made.state_dict().items()}

    def linear(self, name, x):
        bias = self.weights.get(f"{name}.bias", 0.0)
        return self.weights[f"{name}.weight"] @ x + bias

    def dense(self, name, x):
        return self.linear(f"{name}.2", np.maximum(self.linear(f"{name}.0", x), 0.0))

    def norm(self, name, x):
        scaled = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def heard(self, name, target, told):
        """By a target, from pairs of a source and the numbers of the edge."""
        found = np.zeros(WIDTH)
        if told:
            rates = []
            for source, edge in told:
                rate = self.linear(f"{name}.rate_source", source)
                rate = rate + self.linear(f"{name}.rate_target", target)
                rate = rate + self.linear(f"{name}.rate_edge", edge)
                rates.append(np.exp(np.where(rate > 0, rate, 0.2 * rate)))
            for (source, edge), rate in zip(told, rates, strict=True):
                share = np.repeat(rate / sum(rates), WIDTH // HEADS)
                value = self.linear(f"{name}.source", source)
                found += share * (value + self.weights[f"{name}.edge.weight"] @ edge)
        return found + self.weights[f"{name}.edge.bias"]

    def layer(self, at, o, operators, devices):
        of = f"layers.{at}.told.convs.<{{}}>".format
        new_operators, new_devices = [], []
        for t, h in enumerate(operators):
            makers = [
                (operators[s], o.tensors[s, [t]]) for s in range(OPERATORS) if o.tensors[s, t]
            ]
            readers = [
                (operators[s], o.tensors[t, [s]]) for s in range(OPERATORS) if o.tensors[t, s]
            ]
            served = [(devices[s], o.places[t, s]) for s in range(DEVICES)]
            mean = (
                self.heard(of("operator___previous___operator"), h, makers)
                + self.heard(of("operator___next___operator"), h, readers)
                + self.heard(of("device___serve___operator"), h, served)
            ) / 3
            new_operators.append(self.norm(f"layers.{at}.norm.operator", h + np.tanh(mean)))
        for t, h in enumerate(devices):
            linked = [(devices[s], o.links[t, [s]]) for s in range(DEVICES)]
            placed = [(operators[s], o.places[s, t]) for s in range(OPERATORS)]
            mean = (
                self.heard(of("device___link___device"), h, linked)
                + self.heard(of("operator___place___device"), h, placed)
            ) / 2
            new_devices.append(self.norm(f"layers.{at}.norm.device", h + np.tanh(mean)))
        return new_operators, new_devices

    def logits(self, o):
        operators = [np.tanh(self.linear("operators", x)) for x in o.operators]
        devices = [np.tanh(self.linear("devices", x)) for x in o.devices]
        for at in range(LAYERS):
            operators, devices = self.layer(at, o, operators, devices)
        found = []
        for method, parts in zip(o.methods, o.parts, strict=True):
            rated = [
                self.dense("device", np.concatenate([h, part]))
                for h, part in zip(devices, parts, strict=True)
            ]
            of_choice = [operators[o.turn], method, np.mean(rated, axis=0)]
            found.append(self.dense("choice", np.concatenate(of_choice))[0])
        return np.asarray(found)


@pytest.mark.parametrize("seed", range(3))
def test_logits_are_those_of_the_formulas(seed):
    made, o = network(seed), observation(seed)
    wanted = Formulas(made).logits(o)
    assert np.ptp(wanted) > 0.1
    assert made(graph_of(o)).double().numpy() == pytest.approx(wanted, abs=1e-4)


def test_each_kind_of_edges_is_heard_and_its_direction_too():
    made, o = network(), observation()
    said = made(graph_of(o))
    for name in ("tensors", "links"):
        turned = {field: getattr(o, field) for field in o.__slots__}
        turned[name] = turned[name].T
        assert (made(graph_of(Observation(**turned))) - said).abs().max() > 1e-3


def test_networks_leave_no_files_behind(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = network()
    made(graph_of(observation()))
    assert not list(tmp_path.iterdir())
    # Nor did a network that was made earlier: the code would be a module of this name.
    own = type(next(iter(made.layers[0].told.convs.values())))
    assert f"{own.__module__}_{own.__name__}_propagate" not in sys.modules
