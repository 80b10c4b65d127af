"""Automatic data parallelism: what is found is the batch, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from tests.programs import mlp, transformer
from weft.core.errors import InputError
from weft.parallel.dqn.agent import Agent, AgentSettings
from weft.parallel.dqn.batching import BatchEnvironment, candidates, most_inputs
from weft.parallel.dqn.deciding import CUT_REWARD
from weft.program.builder import Builder
from weft.program.graph import Phase, Role
from weft.program.types import DType, TensorType

LAYERS = transformer(num_layers=2, batch=8, length=16, width=64, num_heads=4)


def by_columns():
    """A loss of samples that are the columns of their input: x [D,B], w [E,D]."""
    builder = Builder("columns")
    w = builder.input("w", Role.PARAMETER, TensorType(DType.F32, (6, 6)))
    x = builder.input("batch.x", Role.BATCH, TensorType(DType.F32, (6, 8)))
    y = builder.add("relu.default", builder.add("einsum", "ed,db->eb", w, x))
    loss = builder.add("sum", y, (0, 1))
    g = builder.add("threshold_backward.default", y, y, 0, phase=Phase.BACKWARD)
    dw = builder.add("einsum", "eb,db->ed", g, x, phase=Phase.BACKWARD)
    new = builder.add("sub.Tensor", w, dw, phase=Phase.UPDATE)
    return builder.build(loss, updates=((w, new),))


def played(environment, choose):
    observation, reward = environment.reset(np.random.default_rng(0)), 0.0
    while observation is not None:
        turn = environment.step(choose(observation))
        reward, observation = reward + turn.reward, turn.observation
    return reward


def without_conflict(observation):
    """The first dim that can be cut without one."""
    cut = observation.choices[:, 0] * (1 - observation.choices[:, -1])
    return int(cut.argmax())


def test_candidates_are_neither_variables_nor_scalars():
    names = {i.node: i.name for i in LAYERS.inputs}
    roles = {i.node: i.role for i in LAYERS.inputs}
    found = candidates(LAYERS)
    assert found
    assert {roles[node] for node in found} == {Role.BATCH}
    assert all(LAYERS.nodes[node].outputs[0].shape for node in found), names


@pytest.mark.parametrize("program", [LAYERS, mlp(batch=8)], ids=["transformer", "mlp"])
def test_every_entry_of_the_batch_is_cut_by_rows(program):
    own = BatchEnvironment(program, 4)
    assert most_inputs(own) == dict.fromkeys(own.candidates, 0)
    assert played(own, without_conflict) == pytest.approx(CUT_REWARD)
    assert own.placements == dict.fromkeys(own.candidates, 0)


def test_a_batch_that_lies_along_another_dim_is_found():
    own = BatchEnvironment(by_columns(), 2)
    assert list(most_inputs(own).values()) == [1]


def test_other_dims_are_in_conflict_and_end_the_episode():
    own = BatchEnvironment(LAYERS, 4)
    observation = own.reset(np.random.default_rng(0))
    conflicting = np.flatnonzero(observation.choices[:, -1])
    assert len(conflicting)
    turn = own.step(int(conflicting[0]))
    assert turn.observation is None
    assert turn.reward == -1.0 / len(own.candidates)


def test_rows_that_do_not_divide_are_not_offered():
    own = BatchEnvironment(mlp(batch=8), 3)
    assert set(most_inputs(own).values()) == {-1}


def test_an_agent_finds_the_batch():
    own = BatchEnvironment(LAYERS, 4)
    settings = AgentSettings(
        returns=(-1.0, CUT_REWARD), explore=(1.0, 0.05, 100), least=32, batch=32, width=32
    )
    agent = Agent(own, settings, seed=0)
    for _ in agent.run(120):
        pass
    assert played(own, agent.best) == pytest.approx(CUT_REWARD)


def test_a_step_that_reads_nothing_is_refused():
    builder = Builder("nothing")
    w = builder.input("w", Role.PARAMETER, TensorType(DType.F32, (4,)))
    with pytest.raises(InputError, match="reads none"):
        BatchEnvironment(builder.build(builder.add("sum", w, (0,))), 2)
