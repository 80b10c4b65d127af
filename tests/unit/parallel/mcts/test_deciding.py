"""The whole way from a program to where its nodes live."""

from dataclasses import replace

from tests.programs import mlp, transformer
from tests.uneven import MIXED, device, machine
from weft.parallel.mcts.cluster import cluster_of, kinds_of
from weft.parallel.mcts.deciding import decide
from weft.parallel.mcts.options import PUBLISHED
from weft.parallel.mcts.simulate import Simulator

PROGRAM = transformer(num_layers=2, batch=16, width=64, slots=("first", "second"))
FEW = {"simulations": 40, "refinements": 60, "most_groups": 6}


def test_every_node_lives_somewhere_and_rows_divide():
    decided = decide(PROGRAM, MIXED, **FEW)
    (found,) = decided.homes
    layouts = found.layouts
    assert len(found.home) == len(PROGRAM.nodes)
    assert all(16 % sum(layout) == 0 for layout in layouts)
    assert {len(layout) for layout in layouts} == {MIXED.num_devices}
    assert decided.found.speedup >= 1.0


def test_what_is_promised_is_what_the_simulator_says():
    decided = decide(PROGRAM, MIXED, **FEW)
    simulator = Simulator(decided.sketch, cluster_of(MIXED, decided.sketch.devices))
    assert simulator.run(decided.found.decision).step_s == decided.found.outcome.step_s


def test_it_takes_the_choices_that_it_may():
    decided = decide(PROGRAM, MIXED, methods=PUBLISHED, **FEW)
    assert {choice.method for choice in decided.found.choices} <= set(PUBLISHED)


def test_it_can_be_stopped_at_once():
    decided = decide(PROGRAM, MIXED, stop=lambda: True)
    assert decided.found.simulations == 0
    assert [homes.layouts for homes in decided.homes] == [((1,) * 16,)]


def test_a_slow_device_gets_less_to_do():
    fast, slow = device("fast", 3.0), device("slow", 1.0)
    both = machine((fast, 1), (slow, 1), inside=1e12, network=1e12)
    program = mlp(num_layers=3, batch=8, width=64)
    decided = decide(program, both, **FEW)
    assert decided.found.outcome.busy_s.min() > 0
    layouts = decided.homes[0].layouts
    assert (3, 1) in layouts
    assert all(of_fast >= of_slow for of_fast, of_slow in layouts)


def test_several_decisions_that_differ_can_be_had():
    one, *others = decide(PROGRAM, MIXED, count=4, **FEW).homes
    assert 1 <= len(others) < 4
    assert len({(homes.layouts, homes.home, homes.factors) for homes in (one, *others)}) == len(
        (one, *others)
    )
    assert decide(PROGRAM, MIXED, **FEW).homes == (one,)


def test_kinds_differ_in_more_than_memory():
    group = MIXED.groups[0]
    memory = replace(group.device.memory_bytes, value=1e9)
    other = replace(group, device=replace(group.device, memory_bytes=memory))
    assert kinds_of(replace(MIXED, groups=(group, other))) == (group.device,)
