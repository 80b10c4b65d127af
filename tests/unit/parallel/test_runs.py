"""Runs of layers that compute all rows: what lies between them, and what still moves."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.homed import devices
from tests.programs import mlp, transformer
from weft.parallel.degrees import Degrees
from weft.parallel.experts import Desk
from weft.parallel.local import Collective, CollectiveKind
from weft.parallel.pinning import resolve
from weft.parallel.placement import REPLICATED
from weft.parallel.runs import Between
from weft.parallel.validate import validate
from weft.parallel.wide import Way
from weft.program.graph import Phase

WORDS = transformer(num_layers=2, batch=8, length=16, width=16, num_heads=2, vocabulary=64)
CHAIN = mlp(num_layers=2, batch=8, width=16, hidden=lambda _: 32)


def planned(program, ways, **degrees):
    desk = Desk(program, resolve(program))
    named = Degrees(**degrees, wide=True)
    chosen = {
        node: own
        for node, layer in desk.schemes.layers.items()
        if (own := ways(node, layer)) is not None
    }
    plan = desk.candidate(devices(named.num_devices), named, 1e12, chosen).plan
    return (
        plan,
        [i for i in validate(plan, program).instructions if isinstance(i, Collective)],
        desk,
    )


def is_table(program, layer):
    return program.nodes[layer.reader].op == "embedding.default"


def test_where_all_layers_compute_all_rows_the_batch_is_gathered_and_nothing_else() -> None:
    _, moved, _ = planned(CHAIN, lambda node, layer: (Way.WHOLE,), tp=4)
    sent = [step for step in moved if step.kind is not CollectiveKind.SLICE]
    assert {step.kind for step in sent} == {CollectiveKind.ALL_GATHER}
    assert {CHAIN.nodes[step.node].op for step in sent} == {"input"}
    assert len({step.node for step in sent}) == len(sent) == 2


def test_rows_come_back_where_a_run_ends() -> None:
    first, *_, last = sorted(Desk(CHAIN, resolve(CHAIN)).schemes.layers)
    plan, moved, desk = planned(
        CHAIN, lambda n, _: None if n in (first, last) else (Way.WHOLE,), tp=4
    )
    for node in (first, last):
        assert plan.strategies[desk.schemes.layers[node].reader].outputs[0] == (0,)
    gathered = [step for step in moved if step.kind is CollectiveKind.ALL_GATHER]
    # What the run reads and what goes past it, and their gradients on the way back.
    for phase in (Phase.FORWARD, Phase.BACKWARD):
        assert len([step for step in gathered if CHAIN.nodes[step.node].phase is phase]) == 2


def test_residuals_and_attention_between_whole_layers_are_whole() -> None:
    plan, _, desk = planned(
        WORDS,
        lambda _, layer: None if is_table(WORDS, layer) else (Way.WHOLE, Way.ROWS),
        dp=2,
        tp=2,
    )
    found = desk.schemes.runs.forward
    tables = desk.schemes.runs.bits(
        node for node, layer in desk.schemes.layers.items() if is_table(WORDS, layer)
    )
    between = [node for node, place in found.items() if place.before & ~tables]
    assert [n for n in between if WORDS.nodes[n].op == "attention"]
    for node in between:
        if len(WORDS.nodes[node].outputs[0].shape) > 2:
            assert plan.strategies[node].outputs[0] == (REPLICATED, 0)


def test_the_last_of_a_run_leads_back_in_rows_and_makes_its_gradient_whole() -> None:
    def ways(_, layer):
        if is_table(WORDS, layer):
            return None
        return (Way.LAST if layer.tail else Way.WHOLE,)

    plan, _, desk = planned(WORDS, ways, tp=2)
    (last,) = (node for node, layer in desk.schemes.layers.items() if layer.tail)
    (back,) = desk.schemes.runs.led_back([last])
    assert plan.strategies[back].outputs[0] == (1,)
    runs = desk.schemes.runs
    tables = runs.bits(n for n, layer in runs.layers.items() if is_table(WORDS, layer))
    inner = [n for n in runs.layers if n != last and runs.read[n].before & ~tables]
    assert {plan.strategies[n].outputs[0] for n in runs.led_back(inner)} == {(REPLICATED,)}
    gradients = [
        number
        for number, node in enumerate(WORDS.nodes)
        if node.phase is Phase.BACKWARD
        and node.op == "einsum"
        and node.outputs[0].shape == WORDS.nodes[last].outputs[0].shape
    ]
    assert {plan.strategies[number].outputs[0] for number in gradients} == {(REPLICATED,)}


@pytest.mark.parametrize("zero", [0, 1])
def test_a_gradient_that_all_make_is_summed_over_the_others_alone(zero: int) -> None:
    _, moved, _ = planned(WORDS, lambda *_: (Way.WHOLE, Way.ROWS), dp=2, tp=2, zero=zero)
    sums = (CollectiveKind.ALL_REDUCE, CollectiveKind.REDUCE_SCATTER)
    assert {step.axis for step in moved if step.kind in sums} == {1}


def test_what_stands_before_and_after_is_found_once_for_each_pass() -> None:
    runs = Desk(CHAIN, resolve(CHAIN)).schemes.runs
    nodes = list(runs.layers)
    for one, two in pairwise(nodes):
        place = Between(runs.bits([one]), runs.bits([two]))
        assert runs.read[two].before & place.before
        assert any(found.after & place.after for found in runs.made[one])
        assert any(own.before & place.after for own in runs.backward.values())
