"""Groups of operators: what stays together, who follows whom."""

import builtins

import pytest

from tests.programs import mlp, towers, transformer, with_masters
from tests.uneven import KINDS
from weft.core.errors import InputError
from weft.parallel.mcts.carrying import FREE, base_groups, floats, rows_of, rules_of_rows
from weft.parallel.mcts.groups import grouped
from weft.parallel.mcts.segments import segments
from weft.parallel.weights import parameters_led_to, weight_values
from weft.program.graph import Phase, Role, Value

DEEP = transformer(num_layers=8, batch=6, slots=("first", "second"))
PROGRAMS = {
    "mlp": mlp(num_layers=3, batch=6, slots=("momentum",)),
    "towers": towers(num_layers=4, batch=6, shared=True),
    "transformer": transformer(num_layers=2, batch=6, slots=("first", "second"), dropout=0.1),
    "deep": DEEP,
    "masters": with_masters(transformer(num_layers=2, batch=6, slots=("first",))),
}
every_program = pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())


@every_program
def test_what_passes_between_base_groups_carries_rows(program):
    rules = rules_of_rows(program)
    base, free = base_groups(program, rules), floats(program)
    weights = weight_values(program)
    for number, node in enumerate(program.nodes):
        if base[number] == FREE or node.phase is not Phase.FORWARD:
            continue
        for value in program.operands(number):
            if value in weights or free[value.node] or base[value.node] == FREE:
                continue
            carries = rules[value.node].outputs[value.output] == 0
            assert carries or base[value.node] == base[number], value


@every_program
def test_every_node_has_one_of_the_groups(program):
    grouping = grouped(program, KINDS, most=5)
    assert len(grouping.group) == len(program.nodes)
    assert set(grouping.group) == set(range(grouping.num_groups))
    assert 2 <= grouping.num_groups <= 5


@every_program
def test_base_groups_are_never_parted(program):
    base = base_groups(program, rules_of_rows(program))
    group = grouped(program, KINDS, most=4).group
    pairs = {(b, group[n]) for n, b in enumerate(base) if b != FREE}
    assert len(pairs) == max(base) + 1


@every_program
def test_readers_of_a_parameter_its_state_and_its_update_are_with_it(program):
    group = grouped(program, KINDS, most=5).group
    leads_to, weights = parameters_led_to(program), weight_values(program)
    for source in program.inputs:
        if source.role is Role.STATE and source.parameter:
            assert group[source.node] == group[program.input_by_name[source.parameter].node]
        if source.role is Role.PARAMETER:
            for reader, _ in program.users[source.node]:
                is_forward = program.nodes[reader].phase is Phase.FORWARD
                if is_forward and Value(reader) not in weights:
                    assert group[reader] == group[source.node]
    for number, node in enumerate(program.nodes):
        if node.phase is Phase.UPDATE and leads_to[number] >= 0:
            assert group[number] == group[leads_to[number]]


def test_a_table_that_is_read_twice_has_one_home():
    program = towers(num_layers=2, batch=4, shared=True)
    base = base_groups(program, rules_of_rows(program))
    readers = [r for r, _ in program.users[program.input_by_name["left.1.up"].node]]
    forward = [r for r in readers if program.nodes[r].phase is Phase.FORWARD]
    assert len(forward) == 2 and len({base[r] for r in forward}) == 1


def test_random_numbers_bind_nobody():
    dry, wet = (transformer(num_layers=2, batch=6, dropout=rate) for rate in (0.0, 0.1))
    count = [max(base_groups(p, rules_of_rows(p))) for p in (dry, wet)]
    assert count[1] > count[0]


def test_groups_come_by_their_time_and_depend_on_nothing_but_the_seed():
    first, again = (grouped(DEEP, KINDS, most=40, seed=3) for _ in range(2))
    assert first.group == again.group
    assert first.num_groups <= 40


def test_metis_joins_what_is_too_much_for_the_other_way():
    base = max(base_groups(DEEP, rules_of_rows(DEEP))) + 1
    grouping = grouped(DEEP, KINDS, most=base // 5)
    assert 2 <= grouping.num_groups <= base // 5


def test_who_has_no_metis_is_told_how_to_get_it(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "pymetis":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"weft\[mcts\]"):
        grouped(DEEP, KINDS, most=4)


def test_a_batch_of_one_row_is_refused():
    with pytest.raises(InputError, match="at least two rows"):
        grouped(mlp(batch=1), KINDS)


def test_rows_are_what_all_entries_have():
    assert rows_of(mlp(batch=6)) == 6


@every_program
def test_segments_are_a_topological_order_of_all_nodes(program):
    group = grouped(program, KINDS, most=5).group
    for phase in (Phase.FORWARD, Phase.BACKWARD):
        found = segments(program, group, phase)
        position = {node: at for at, s in enumerate(found) for node in s.nodes}
        wanted = {n for n, x in enumerate(program.nodes) if x.phase is phase and x.op != "input"}
        assert set(position) == wanted
        for at, segment in enumerate(found):
            assert {group[n] for n in segment.nodes} == {segment.group}
            reads = [v.node for n in segment.nodes for v in program.operands(n)]
            assert all(position.get(read, -1) <= at for read in reads)


def test_a_group_that_waits_for_another_is_two_segments():
    program = mlp(num_layers=1, batch=4)
    ops = [n.op for n in program.nodes]
    group = [1 if op == "relu.default" else 0 for op in ops]
    found = segments(program, group, Phase.FORWARD)
    assert [s.group for s in found][:3] == [0, 1, 0]
