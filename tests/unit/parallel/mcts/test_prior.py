"""What a policy sees, what it makes of it, and how it learns."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from tests.programs import mlp, transformer
from tests.uneven import KINDS, MIXED
from weft.core.errors import InputError
from weft.parallel import shipped
from weft.parallel.mcts import prior as prior_module
from weft.parallel.mcts.cluster import cluster_of
from weft.parallel.mcts.features import (
    CHOICE_WIDTH,
    DEVICE_WIDTH,
    OPERATOR_WIDTH,
    PLACE_WIDTH,
    Observer,
)
from weft.parallel.mcts.geometric import Batch
from weft.parallel.mcts.groups import grouped
from weft.parallel.mcts.network import PriorNetwork, graph_of
from weft.parallel.mcts.options import Options, State
from weft.parallel.mcts.prior import LearnedPrior
from weft.parallel.mcts.search import Search, Tree
from weft.parallel.mcts.simulate import Simulator
from weft.parallel.mcts.sketching import sketched
from weft.parallel.mcts.topologies import random_machine
from weft.parallel.mcts.training import Trainer, TrainingSettings, bettered

SKETCHES = [
    sketched(grouped(program, KINDS, most=most), KINDS)
    for program, most in (
        (transformer(num_layers=2, batch=16, width=64), 8),
        (mlp(num_layers=3, batch=24, width=256), 5),
    )
]
NEVER = lambda: False  # noqa: E731
FEW = TrainingSettings(warm_games=3, games=2, simulations=12, passes=8, batch=8)


def seen(of=SKETCHES[0], on=MIXED, turns=0):
    cluster = cluster_of(on, of.devices)
    options = Options(of, cluster)
    state = State()
    for _ in range(turns):
        state = options.following(state)[-1]
    outcome = Simulator(of, cluster).run(options.decision(state), feedback=True)
    return Observer(options).observe(state, outcome, options.following(state))


def halved(link):
    speed = link.bytes_per_s
    return replace(link, bytes_per_s=replace(speed, value=speed.value / 2))


def untrained(seed=0):
    torch.manual_seed(seed)
    return PriorNetwork(width=16, heads=2, layers=2).eval()


def test_observations_are_finite_and_of_known_widths():
    for turns in range(4):
        o = seen(turns=turns)
        assert o.operators.shape == (SKETCHES[0].num_groups, OPERATOR_WIDTH)
        assert o.devices.shape == (3, DEVICE_WIDTH)
        assert o.places.shape == (SKETCHES[0].num_groups, 3, PLACE_WIDTH)
        assert o.methods.shape[1] == CHOICE_WIDTH and o.parts.shape == (len(o.methods), 3, 2)
        assert o.turn == turns
        for array in (o.operators, o.devices, o.tensors, o.links, o.places):
            assert np.isfinite(array).all() and (array >= 0).all()


def test_what_passes_and_who_is_busy_is_seen():
    o = seen()
    assert (o.tensors > 0).sum() >= SKETCHES[0].num_groups - 1
    assert not np.diag(o.tensors).any()
    assert (o.devices[:, -1] > 0).all()


def test_twice_the_time_and_half_the_bandwidth_look_the_same():
    # Times, and all bytes over bandwidths, in other units.
    sketch = SKETCHES[0]
    slow = replace(sketch, seconds=sketch.seconds * 2)
    groups = tuple(
        replace(group, link=halved(group.link), network=halved(MIXED.network_of(group)))
        for group in MIXED.groups
    )
    half = replace(MIXED, groups=groups, network=halved(MIXED.network))
    one, two = seen(), seen(slow, half)
    fixed = 6
    assert two.operators[:, :fixed] == pytest.approx(one.operators[:, :fixed])
    assert two.tensors == pytest.approx(one.tensors)
    assert two.links == pytest.approx(one.links)
    assert two.devices[:, :4] == pytest.approx(one.devices[:, :4])


def test_a_batch_says_what_each_says_alone():
    network = untrained()
    generator = np.random.default_rng(3)
    several = [seen(turns=1), seen(SKETCHES[1])]
    several += [seen(SKETCHES[1], random_machine(generator, 1e9)) for _ in range(3)]
    graphs = [graph_of(one) for one in several]
    alone = torch.cat([network(graph) for graph in graphs])
    together = network(Batch.from_data_list(graphs))
    assert together.detach() == pytest.approx(alone.detach(), abs=1e-4)


def test_the_order_of_device_groups_does_not_matter():
    network, o = untrained(), seen()
    order = [2, 0, 1]
    turned = replace(
        o,
        devices=o.devices[order],
        links=o.links[np.ix_(order, order)],
        places=o.places[:, order],
        parts=o.parts[:, order],
    )
    same = network(graph_of(o)).detach()
    assert network(graph_of(turned)).detach() == pytest.approx(same, abs=1e-5)


def test_what_a_choice_takes_part_in_matters():
    network, o = untrained(), seen()
    other = replace(o, parts=o.parts[::-1].copy())
    assert not torch.allclose(network(graph_of(o)), network(graph_of(other)))


def test_priors_are_probabilities_and_rule_nothing_out():
    cluster = cluster_of(MIXED, KINDS)
    options = Options(SKETCHES[0], cluster)
    search = Search(Simulator(SKETCHES[0], cluster), options, LearnedPrior(untrained()))
    search.run(5)
    assert search.root.prior.sum() == pytest.approx(1.0)
    assert search.root.prior.min() >= 0.1 / len(search.root.prior) - 1e-12


def test_who_has_no_pytorch_geometric_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_geometric.data", None)
    monkeypatch.delitem(sys.modules, "weft.parallel.mcts.geometric")
    with pytest.raises(InputError, match=r"weft\[mcts\]"):
        importlib.import_module("weft.parallel.mcts.geometric")


def test_who_has_no_weights_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(shipped, "files", lambda _: tmp_path)
    prior_module.shipped_network.cache_clear()
    with pytest.raises(InputError, match=r"benchmarks\.tag\.train"):
        prior_module.shipped_network()
    prior_module.shipped_network.cache_clear()


def test_the_shipped_network_is_small_and_reads_any_machine():
    network = prior_module.shipped_network()
    assert sum(p.numel() for p in network.parameters()) * 2 < 2**20
    generator = np.random.default_rng(0)
    for _ in range(3):
        o = seen(SKETCHES[1], random_machine(generator, 1e9))
        assert torch.isfinite(network(graph_of(o))).all()


def test_training_makes_what_the_search_preferred_likelier():
    trainer = Trainer(SKETCHES, replace(FEW, simulations=120))
    first = next(trainer.run(NEVER)).loss
    losses = [trainer._learn(16, NEVER) for _ in range(4)]
    assert losses[-1] < losses[0] < first


def test_training_is_that_of_its_seed_and_goes_on_where_it_was(tmp_path):
    def losses(trainer, count):
        return [progress.loss for progress in islice(trainer.run(NEVER), count)]

    whole = losses(Trainer(SKETCHES, FEW, seed=5), 3)
    first = Trainer(SKETCHES, FEW, seed=5)
    begun = losses(first, 2)
    second = Trainer(SKETCHES, FEW, seed=6)
    torch.save(first.state(), tmp_path / "state.pt")
    second.resume(torch.load(tmp_path / "state.pt", weights_only=False))
    assert begun + losses(second, 1) == pytest.approx(whole)


def test_what_is_wanted_is_the_prior_bettered_by_values():
    tree = Tree(State())
    tree.expand((State(),) * 3, np.full(3, 1 / 3))
    tree.visits, tree.total = np.asarray([2.0, 1.0, 0.0]), np.asarray([2.0, 0.4, 0.0])
    first, second, untried = bettered(tree, 0.5)
    assert first + second + untried == pytest.approx(1.0)
    assert first / second == pytest.approx(np.exp((1.0 - 0.4) / 0.5))
    assert untried / second == pytest.approx(np.exp((0.8 - 0.4) / 0.5))


def test_training_that_is_stopped_ends_at_once():
    trainer = Trainer(SKETCHES, FEW)
    assert list(trainer.run(lambda: True)) == []
    assert trainer.games == 0
    trainer.resume(trainer.state())
    asked = iter([False] * 8)
    list(trainer.run(lambda: next(asked, True)))
    assert trainer.games == 1
