"""Layers that are cut, in the sketch and as plans."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.job import program_of
from tests.homed import MIXED, devices, drawn_cuts, drawn_homes
from tests.programs import mlp, transformer
from tests.uneven import device, machine, sketch
from weft.core.errors import InputError
from weft.cost.collective import collective_seconds
from weft.parallel.homes import Homes, plan_by_homes
from weft.parallel.mcts.cluster import cluster_of, kinds_of
from weft.parallel.mcts.deciding import decide
from weft.parallel.mcts.decision import Action, Sync, even_rows, homes
from weft.parallel.mcts.groups import grouped
from weft.parallel.mcts.layer_cuts import layer_cuts
from weft.parallel.mcts.options import EXTENDED, Choice, Method, Options
from weft.parallel.mcts.simulate import Simulator
from weft.parallel.mcts.sketching import sketched
from weft.parallel.validate import validate
from weft.parallel.wide import Way
from weft.program.graph import Role

FOUR = machine((device(), 4), inside=2.0, latency_s=0.125)


def one_layer(gradient_bytes, read=2.0, made=8.0, columns=8, summands=8):
    """A layer with a segment in either pass, each of a second a row."""
    return sketch(
        [(0, 1.0)],
        [(0, 1.0)],
        gradients=[(0, 1, gradient_bytes)],
        layers=[(0, read, made, columns, summands)],
    )


def on(of, where=FOUR):
    of = replace(of, devices=kinds_of(where))
    return Simulator(of, cluster_of(where, of.devices))


def took(simulator, sync):
    members = range(simulator.cluster.num_devices)
    rows = even_rows(simulator.sketch.rows, members, len(members))
    return simulator.run((Action(rows, sync),)).step_s


def test_what_moves_least_is_taken() -> None:
    everyone = (0, 1, 2, 3)
    simulator = on(one_layer(1e6))
    meeting = simulator.cluster.meeting(everyone)
    (cut,) = layer_cuts(simulator.cluster, simulator.sketch, everyone)
    assert cut is not None and cut.way is Way.COLUMNS  # less is read than made
    assert cut.forward_s == collective_seconds("all-gather", 4 * 2.0, meeting)
    assert cut.backward_s == collective_seconds("reduce-scatter", 4 * 2.0, meeting)
    wide = on(one_layer(1e6, read=8.0, made=2.0))
    (cut,) = layer_cuts(wide.cluster, wide.sketch, everyone)
    assert cut is not None and cut.way is Way.SUMMANDS


@pytest.mark.parametrize(
    ("layer", "members"),
    [
        (one_layer(1.0), (0, 1, 2, 3)),  # its gradient is less
        (one_layer(1e6, columns=6, summands=0), (0, 1, 2, 3)),  # it does not divide
        (one_layer(1e6), (0, 1, 2)),  # the rows do not
        (one_layer(1e6), (2,)),
        (sketch([(0, 1.0)], [(0, 1.0)], gradients=[(0, 1, 1e6)]), (0, 1, 2, 3)),  # no layer
    ],
)
def test_others_are_left_whole(layer, members) -> None:
    simulator = on(layer)
    assert layer_cuts(simulator.cluster, simulator.sketch, members) == (None,)


def test_what_moves_holds_up_both_passes_and_no_gradient_is_added_up() -> None:
    simulator = on(one_layer(1e6))
    (cut,) = simulator.cuts((0, 1, 2, 3))
    assert cut is not None
    assert took(simulator, Sync.CUT) == pytest.approx(1 + 1 + cut.forward_s + cut.backward_s)
    assert took(simulator, Sync.ALL_REDUCE) > 1e6 / 2


def test_each_device_holds_its_part() -> None:
    simulator = on(one_layer(1e6))
    rows = even_rows(4, range(4), 4)
    cut = simulator.run((Action(rows, Sync.CUT),)).peak_bytes
    whole = simulator.run((Action(rows),)).peak_bytes
    assert whole.max() - cut.max() == pytest.approx(0.75 * 1e6)


def test_a_layer_that_is_left_whole_is_added_up_as_ever() -> None:
    simulator = on(one_layer(1.0))
    assert took(simulator, Sync.CUT) == took(simulator, Sync.ALL_REDUCE)
    options = Options(simulator.sketch, simulator.cluster, EXTENDED)
    everybody = (True,) * simulator.cluster.num_groups
    even, cut = (options.action(Choice(m, everybody), 0, None) for m in (Method.EVEN, Method.CUT))
    assert even == cut
    assert all(choice.method is not Method.CUT for choice in options.choices)


PROGRAMS = {
    "transformer": lambda: transformer(num_layers=2, batch=32, width=64, slots=("first",)),
    "mlp": lambda: mlp(num_layers=3, batch=64, width=512, hidden=lambda _: 2048, slots=("m",)),
    "bert": lambda: program_of("bert.py:bert_of_two_layers"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_plans_cut_what_the_search_cuts(name) -> None:
    program = PROGRAMS[name]()
    devices = kinds_of(MIXED)
    grouping = grouped(program, devices, most=8)
    of = sketched(grouping, devices)
    simulator = Simulator(of, cluster_of(MIXED, devices))
    rows = even_rows(of.rows, range(4), MIXED.num_devices)  # the four that share a node
    decision = (Action(rows, Sync.CUT),) * of.num_groups
    found = homes(decision, grouping, of, cut=simulator.cut(decision))
    assert found.cut == {
        int(of.parameters.node[number]): (cut.way,) for number, cut in simulator.cut(decision)
    }
    made = plan_by_homes("cut", program, MIXED, found, memory_limit_bytes=1e12).plan
    validate(made, program)
    assert found.cut
    by_name = program.input_by_name
    for source in program.inputs:
        if source.role.is_persistent and program.nodes[source.node].outputs[0].shape:
            owner = by_name[source.parameter].node if source.parameter else source.node
            held = made.strategies[source.node]
            if owner in found.cut:
                assert held.outputs[0][0] >= 0
                assert len(made.mesh_of(held.home).members(0)) == 4
            elif source.role is Role.STATE:
                assert held.outputs[0] == made.strategies[owner].outputs[0]


def test_a_wide_vocabulary_is_cut_on_a_slow_network() -> None:
    program = transformer(
        num_layers=1, batch=32, length=8, width=64, vocabulary=16_384, slots=("m",)
    )
    decided = decide(program, MIXED, simulations=60, refinements=200)
    cut = decided.homes[0].cut
    without = decide(
        program,
        MIXED,
        simulations=60,
        refinements=200,
        methods=tuple(method for method in EXTENDED if method is not Method.CUT),
    )
    assert cut
    assert decided.found.outcome.step_s < without.found.outcome.step_s
    steps = [
        plan_by_homes("own", program, MIXED, own.homes[0], memory_limit_bytes=1e12).step_s
        for own in (decided, without)
    ]
    assert steps[0] < steps[1]


@pytest.mark.parametrize("seed", range(6))
def test_what_is_cut_meets_rows_of_any_home(seed) -> None:
    program = program_of("resnet.py:resnet_tiny", double=True)
    layouts = ((4, 2, 1, 1), (1, 1, 0, 0), (1, 1, 1, 1), (0, 0, 1, 1))
    homes_of = drawn_homes(program, layouts, seed)
    with_cuts = replace(homes_of, cut=drawn_cuts(program, homes_of, seed, least=0))
    made = plan_by_homes("drawn", program, devices(4), with_cuts, memory_limit_bytes=1e12)
    validate(made.plan, program)


def test_a_value_moves_where_its_cut_dim_does_not_divide() -> None:
    # A product of three columns is cut among three; what follows lives on four.
    program = mlp(num_layers=2, batch=12, width=6, hidden=lambda _: 9)
    machine = devices(4)
    weight = next(i.node for i in program.inputs if i.name == "layers.0.up")
    three, four = (1, 1, 1, 0), (1, 1, 1, 1)
    home = tuple(0 if number <= weight else 1 for number in range(len(program.nodes)))
    wish = Homes(layouts=(three, four), home=home, cut={weight: (Way.COLUMNS,)})
    made = plan_by_homes("three and four", program, machine, wish, memory_limit_bytes=1e12)
    validate(made.plan, program)


def test_layers_are_cut_where_parts_are_equal() -> None:
    program = PROGRAMS["mlp"]()
    layout = (3, 1, *(0,) * 14)
    weight = next(i.node for i in program.inputs if i.name.endswith("up"))
    wish = Homes(layouts=(layout,), home=(0,) * len(program.nodes), cut={weight: (Way.COLUMNS,)})
    with pytest.raises(InputError, match="layers are cut where several places"):
        plan_by_homes("unequal", program, MIXED, wish, memory_limit_bytes=1e12)
