"""The coarse simulator against the one that plans are measured with, operator by operator."""

from dataclasses import replace

import pytest

from tests.programs import mlp, transformer
from tests.uneven import MIXED
from weft.parallel.experts import expert_plan
from weft.parallel.mcts.cluster import cluster_of, kinds_of
from weft.parallel.mcts.decision import Action, even_rows
from weft.parallel.mcts.groups import grouped
from weft.parallel.mcts.simulate import Simulator
from weft.parallel.mcts.sketching import sketched

V100 = replace(MIXED, groups=MIXED.groups[:1])
TWO_NODES = replace(MIXED, groups=(replace(MIXED.groups[0], num_nodes=2),))


@pytest.mark.parametrize("machine", [V100, TWO_NODES], ids=["inside a node", "across nodes"])
@pytest.mark.parametrize(
    "program",
    [
        transformer(num_layers=4, batch=32, length=64, width=512, slots=("first", "second")),
        mlp(num_layers=4, batch=4096, width=1024, slots=("momentum",), hidden=lambda _: 2048),
    ],
    ids=["transformer", "mlp"],
)
def test_data_parallel_takes_as_long_and_as_much_memory(program, machine):
    plan = expert_plan(program, machine, dp=machine.num_devices).prediction
    devices = kinds_of(machine)
    sketch = sketched(grouped(program, devices, most=12), devices)
    simulator = Simulator(sketch, cluster_of(machine, devices))
    members = range(machine.num_devices)
    action = Action(even_rows(sketch.rows, members, machine.num_devices))
    outcome = simulator.run((action,) * sketch.num_groups)
    assert outcome.step_s == pytest.approx(plan.step_s, rel=0.1)
    assert outcome.peak_bytes.max() == pytest.approx(plan.peak_bytes, rel=0.25)
