"""What the classical schemes move, and where what they cut lies."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.job import program_of
from tests.programs import mixture, mlp, transformer, with_masters
from weft.core.errors import InputError
from weft.machine.presets import preset
from weft.parallel.degrees import Degrees
from weft.parallel.experts import expert_plan, expert_proposals
from weft.parallel.local import Collective, CollectiveKind
from weft.parallel.pipeline.microbatch import in_micro_batches
from weft.parallel.plan import ParallelPlan
from weft.parallel.request import PlanRequest
from weft.parallel.schemes import Schemes
from weft.parallel.spmd import lower
from weft.parallel.weights import parameters_led_to
from weft.program.graph import Phase, Program, Role

MACHINE = preset("dgx-h100x1")
PLAIN = mlp(num_layers=2, batch=16, width=64, hidden=lambda _: 64, slots=("m", "v"))
MASTERS = with_masters(PLAIN)
WEIGHT_BYTES = 4 * 64 * 64 * 4
EXPERTS = mixture(batch=8, num_experts=8, slots=("m",))
DECODER = transformer(num_layers=2, batch=4, length=16, width=16, num_heads=2, vocabulary=16)


def moved(program: Program, plan: ParallelPlan) -> Counter[tuple[CollectiveKind, int, Phase]]:
    """How often each kind of collective runs, by axis and phase."""
    return Counter(
        (i.kind, i.axis, i.phase)
        for i in lower(program, plan).instructions
        if isinstance(i, Collective) and i.kind is not CollectiveKind.SLICE
    )


@pytest.mark.parametrize(
    ("program", "zero", "state"),
    [
        (PLAIN, 0, 3.0),
        (PLAIN, 1, 1 + 2 / 8),
        (PLAIN, 2, 1 + 2 / 8),
        (PLAIN, 3, 3 / 8),
        (MASTERS, 0, 3.0),
        (MASTERS, 1, 3 / 8),
        (MASTERS, 3, 3 / 8),
    ],
)
def test_a_stage_of_zero_stores_its_part(program: Program, zero: int, state: float) -> None:
    whole = 2 * 2 * 64 * 4  # the batch: x and y of 16 rows over 8 devices
    found = expert_plan(program, MACHINE, dp=8, zero=zero).prediction.state_bytes
    assert found == pytest.approx(state * WEIGHT_BYTES + whole)


def test_zero_1_scatters_gradients_and_gathers_what_it_updated() -> None:
    found = moved(PLAIN, expert_plan(PLAIN, MACHINE, dp=8, zero=1))
    assert found[CollectiveKind.REDUCE_SCATTER, 0, Phase.UPDATE] == 4
    assert found[CollectiveKind.ALL_GATHER, 0, Phase.UPDATE] == 4
    assert found[CollectiveKind.ALL_REDUCE, 0, Phase.UPDATE] == 0


def test_zero_1_gathers_casts_of_masters_once_and_zero_3_in_each_pass() -> None:
    once = moved(MASTERS, expert_plan(MASTERS, MACHINE, dp=8, zero=1))
    each = moved(MASTERS, expert_plan(MASTERS, MACHINE, dp=8, zero=3))
    assert once[CollectiveKind.ALL_GATHER, 0, Phase.FORWARD] == 4
    assert once[CollectiveKind.ALL_GATHER, 0, Phase.BACKWARD] == 0
    assert once[CollectiveKind.ALL_GATHER, 0, Phase.UPDATE] == 0
    # The gradient of the batch is of no use, so the first weight is not read again.
    assert each[CollectiveKind.ALL_GATHER, 0, Phase.BACKWARD] == 3


def test_a_weight_is_stored_along_another_dim_than_it_is_used() -> None:
    plan = expert_plan(PLAIN, MACHINE, dp=4, tp=2, fsdp=True)
    for source in PLAIN.inputs:
        if source.role is Role.PARAMETER:
            data, tensor = plan.strategies[source.node].outputs[0]
            assert {data, tensor} == {0, 1}
    found = moved(PLAIN, plan)
    assert not any(kind is CollectiveKind.ALL_GATHER and axis == 1 for kind, axis, _ in found)


def test_tokens_travel_to_the_experts_and_back_once_in_each_pass() -> None:
    plan = expert_plan(EXPERTS, MACHINE, dp=8, ep=8)
    found = moved(EXPERTS, plan)
    layers = 2
    assert found[CollectiveKind.ALL_TO_ALL, 0, Phase.FORWARD] == 2 * layers
    assert found[CollectiveKind.ALL_TO_ALL, 0, Phase.BACKWARD] == 2 * layers
    for name in ("up", "down"):
        node = EXPERTS.input_by_name[f"layers.0.{name}"].node
        assert plan.strategies[node].outputs[0] == (0,)


def test_experts_over_part_of_the_devices_are_data_parallel_over_the_rest() -> None:
    plan = expert_plan(EXPERTS, MACHINE, dp=8, ep=2)
    node = EXPERTS.input_by_name["layers.0.up"].node
    assert plan.mesh.shape == (4, 2)
    assert plan.strategies[node].outputs[0] == (-1, 0)


def test_context_parallel_gathers_keys_and_values_alone() -> None:
    plan = expert_plan(DECODER, MACHINE, cp=8)
    found = moved(DECODER, plan)
    layers = 2
    assert found[CollectiveKind.ALL_GATHER, 0, Phase.FORWARD] == 2 * layers
    assert found[CollectiveKind.ALL_TO_ALL, 0, Phase.FORWARD] == 0
    for number, node in enumerate(DECODER.nodes):
        if node.op == "attention":
            assert plan.strategies[number].operands == ((2,), (-1,), (-1,))
        if node.op in ("native_layer_norm.default", "gelu.default"):
            assert plan.strategies[number].outputs[0] == (1,)


@pytest.mark.parametrize(
    ("program", "degrees", "named"),
    [
        (PLAIN, {"cp": 2}, "no tokens"),
        (DECODER, {"cp": 3}, "sequences of 16"),
        (DECODER, {"dp": 2, "ep": 2}, "several experts"),
        (EXPERTS, {"dp": 8, "ep": 8, "tp": 2}, "at most 8 devices"),
    ],
)
def test_programs_that_have_nothing_to_cut_are_refused(
    program: Program, degrees: dict[str, int], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        expert_plan(program, MACHINE, **degrees)


def proposed(program: Program) -> set[str]:
    return {p.name for p in expert_proposals(PlanRequest(program=program, machine=MACHINE))}


def test_experts_propose_what_a_program_has_to_cut() -> None:
    assert {"ZeRO-1 8", "FSDP 8", "DDP 8"} <= proposed(PLAIN)
    assert {"ZeRO-1 8 x EP 8", "FSDP 8 x EP 8"} <= proposed(EXPERTS)
    assert "ZeRO-1 4 x CP 2" in proposed(DECODER)
    assert not any("EP" in name or "CP" in name for name in proposed(PLAIN))


def test_gradients_of_cut_weights_are_made_cut_where_activations_are_cut_along_the_sequence():
    program = in_micro_batches(program_of("llama3.py:llama_tiny"), 2)
    schemes = Schemes(program)
    (axis,), _ = schemes.axes(Degrees(tp=2, sp=True))
    leads_to, found = parameters_led_to(program), 0
    for number, node in enumerate(program.nodes):
        cut = schemes.cuts.get(leads_to[number])
        if node.op == "accumulate" and cut is not None:
            found += 1
            assert axis.rules[number].outputs[0] == cut.dim
    assert found > 4


def test_stages_are_no_degree_of_one_stage() -> None:
    with pytest.raises(InputError, match="pp"):
        expert_plan(PLAIN, MACHINE, dp=4, pp=2)  # pyright: ignore[reportCallIssue]
