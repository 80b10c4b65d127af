"""Episodes of decisions about variables: groups, rewards, and what holds of the whole program."""

from __future__ import annotations

import numpy as np
import pytest

from tests.programs import mlp, transformer
from weft.core.errors import InputError
from weft.parallel.dqn.agent import Agent, AgentSettings
from weft.parallel.dqn.deciding import CUT_REWARD, PartitionEnvironment
from weft.parallel.linkage import Decision, ReducedAxis
from weft.parallel.partition import Partition, most_cuts
from weft.parallel.placement import REPLICATED
from weft.program.fold import fold
from weft.program.graph import Role, Value


def partition(program, size=2, **given):
    batch = {Value(i.node): REPLICATED for i in program.inputs if i.role is Role.BATCH}
    return Partition(ReducedAxis(program, size), fold(program), given.get("given", batch))


@pytest.fixture(scope="module")
def layers():
    return partition(transformer(num_layers=4))


def played(environment, choose):
    observation, reward = environment.reset(np.random.default_rng(0)), 0.0
    while observation is not None:
        turn = environment.step(choose(observation))
        reward, observation = reward + turn.reward, turn.observation
    return reward


def cut_if_possible(observation):
    return int(np.where(observation.allowed, observation.choices[:, 4], -1).argmax())


def leave_whole(observation):
    return int(np.where(observation.allowed, -observation.choices[:, 4], -9).argmax())


def test_cutting_what_can_be_cut_is_megatron(layers):
    environment = PartitionEnvironment(layers)
    reward = played(environment, cut_if_possible)
    found = layers.settled(environment.taken)
    names = {i.node: i.name for i in layers.axis.program.inputs}
    cut = {names[v.node]: p for v, p in found.placements.items() if p >= 0}
    assert found.conflicts == 0
    for number in range(4):
        own = f"layers.{number}."
        assert {cut[own + f"attention.{part}"] for part in ("query", "key", "value")} == {0}
        assert (cut[own + "attention.out"], cut[own + "mlp.up"], cut[own + "mlp.down"]) == (1, 0, 1)
    assert not any("norm" in name for name in cut)
    assert reward <= CUT_REWARD


def test_the_most_that_can_be_cut_is_found(layers):
    environment = PartitionEnvironment(layers)
    played(environment, cut_if_possible)
    best = layers.settled(most_cuts(layers))
    assert best.conflicts == 0
    assert best.cuts == layers.settled(environment.taken).cuts


def every_way(part, taken=()):
    """Cuts of each complete set of decisions."""
    known = part.known(taken)
    node = next((n for n in part.order if Value(n) not in known), None)
    if node is None:
        return [part.settled(taken).cuts]
    ways = (Decision(Value(node), place) for place in part.places(node))
    return [
        c for way in ways if not part.after(taken, way)[1] for c in every_way(part, (*taken, way))
    ]


@pytest.mark.parametrize("size", [2, 4])
def test_no_other_way_cuts_more(size):
    part = partition(mlp(), size)
    assert part.settled(most_cuts(part)).cuts == max(every_way(part))


def test_layers_that_are_alike_are_decided_once(layers):
    environment = PartitionEnvironment(layers)
    played(environment, cut_if_possible)
    representative = layers.folding.representative
    assert all(representative[d.variable.node] == d.variable.node for d in environment.taken)
    assert len(environment.taken) < layers.settled(environment.taken).cuts


def test_leaving_all_whole_pays_a_quarter_as_much_for_each(layers):
    most = played(PartitionEnvironment(layers), cut_if_possible)
    environment = PartitionEnvironment(layers)
    least = played(environment, leave_whole)
    assert layers.settled(environment.taken).cuts == 0
    assert 0 < least < most


def test_strictly_a_conflict_ends_the_episode_with_a_loss():
    part = partition(transformer(num_layers=4))
    environment = PartitionEnvironment(part, strict=True)
    observation = environment.reset(np.random.default_rng(0))
    while observation is not None:
        conflicting = np.flatnonzero(observation.choices[:, 8])
        if len(conflicting):
            turn = environment.step(int(conflicting[0]))
            assert turn.observation is None
            assert turn.reward == -1.0 / len(part.variables)
            return
        observation = environment.step(cut_if_possible(observation)).observation
    pytest.fail("no choice was in conflict")


def test_an_end_is_paid_by_whoever_is_asked(layers):
    paid = []

    def final(settled):
        paid.append(settled.cuts)
        return 0.75

    assert played(PartitionEnvironment(layers, final), cut_if_possible) == 0.75
    assert len(paid) == 1 and paid[0] > 0


def test_an_agent_finds_what_is_best(layers):
    best = played(PartitionEnvironment(layers), cut_if_possible)
    environment = PartitionEnvironment(layers, strict=True)
    settings = AgentSettings(
        returns=(-0.1, CUT_REWARD),
        explore=(1.0, 0.05, 1000),
        learning_rate=1e-3,
        width=32,
        least=64,
    )
    agent = Agent(environment, settings, seed=0)
    for _ in agent.run(200):
        pass
    assert played(environment, agent.best) == pytest.approx(best)


def test_what_contradicts_itself_is_refused():
    program = mlp()
    first, second = [i for i in program.inputs if i.role is Role.PARAMETER][:2]
    with pytest.raises(InputError, match="agree with each other"):
        partition(program, given={Value(first.node): 0, Value(second.node): 0})
