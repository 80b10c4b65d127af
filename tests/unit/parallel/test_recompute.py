"""Recomputation changes when things are computed, not what."""

from __future__ import annotations

import numpy as np
import pytest

from tests.programs import random_inputs, transformer
from weft.core.errors import VerifyError
from weft.machine.presets import preset
from weft.parallel.candidate import assemble
from weft.parallel.copies import Decision, copies_for, recomputed
from weft.parallel.degrees import Degrees
from weft.parallel.experts import expert_candidate
from weft.parallel.plan import Strategy
from weft.parallel.recompute import cheap_nodes, expand, layer_nodes, with_recompute
from weft.parallel.reshard import Resharding
from weft.program.evaluate import evaluate
from weft.program.graph import Phase, Value
from weft.program.operators import Kind, operator
from weft.program.types import DType
from weft.program.verify import verify

PROGRAM = transformer(num_layers=3, batch=4, length=8, width=16, dtype=DType.F64, dropout=0.5)


@pytest.mark.parametrize("nodes", [cheap_nodes, layer_nodes])
def test_the_step_computes_the_same(nodes) -> None:
    again = with_recompute(PROGRAM, nodes(PROGRAM))
    verify(again)
    inputs = random_inputs(PROGRAM)
    loss, updates = evaluate(PROGRAM, inputs)
    loss_again, updates_again = evaluate(again, inputs)
    assert loss_again == loss
    for name, array in updates.items():
        np.testing.assert_array_equal(updates_again[name], array)


def test_cheap_recomputation_repeats_no_product() -> None:
    again = expand(PROGRAM, cheap_nodes(PROGRAM))
    clones = [
        n
        for n, old in enumerate(again.origin)
        if again.program.nodes[n].phase is not PROGRAM.nodes[old].phase
    ]
    assert clones
    heavy = {Kind.CONTRACT, Kind.ATTENTION, Kind.CONVOLUTION}
    assert not {operator(again.program.nodes[n].op).kind for n in clones} & heavy


def test_full_recomputation_lowers_the_peak_of_a_deep_model() -> None:
    deep = transformer(num_layers=8, batch=64, length=256, width=64, vocabulary=64)
    machine = preset("dgx-h100x1")
    plain = expert_candidate(deep, machine, Degrees(dp=8), memory_limit_bytes=1e12)
    again = expand(deep, layer_nodes(deep))
    strategies = [plain.plan.strategies[old] for old in again.origin]
    mesh = plain.plan.mesh
    decision = Decision(tuple(strategies), {})
    copies = copies_for(again.program, decision, Resharding(machine, mesh))
    candidate = assemble(
        "again", deep, machine, mesh, strategies, copies,
        memory_limit_bytes=1e12, recompute=again.chosen,
    )  # fmt: skip
    assert candidate.peak_bytes < 0.7 * plain.peak_bytes
    assert candidate.step_s > plain.step_s


def test_inputs_and_backward_nodes_cannot_be_recomputed() -> None:
    backward = next(n for n, x in enumerate(PROGRAM.nodes) if x.phase is Phase.BACKWARD)
    for node in (PROGRAM.inputs[0].node, backward):
        with pytest.raises(VerifyError, match=f"node {node}"):
            with_recompute(PROGRAM, [node])


def test_nothing_to_recompute_is_the_same_program() -> None:
    assert with_recompute(PROGRAM, ()) is PROGRAM


def test_every_output_that_lasts_still_lasts_where_nodes_move() -> None:
    expanded = expand(PROGRAM, cheap_nodes(PROGRAM))
    node = next(n for n, this in enumerate(PROGRAM.nodes) if len(this.outputs) > 1)
    lasting = frozenset(Value(node, output) for output in range(2))
    whole = Strategy(outputs=((-1,),), operands=())
    decision = Decision((whole,) * len(PROGRAM.nodes), {}, lasting)
    found = recomputed(decision, PROGRAM, expanded).lasting
    assert {(expanded.origin[v.node], v.output) for v in found} == {(node, 0), (node, 1)}
