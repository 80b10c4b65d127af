"""Factors of gradients: found, priced, sent where that is less and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.homed import devices
from tests.programs import mlp
from weft.core.errors import InputError
from weft.core.provenance import derived
from weft.machine.presets import preset
from weft.parallel.experts import expert_plan
from weft.parallel.factors import gradient_products, paying_products, sends_less
from weft.parallel.local import Collective, CollectiveKind
from weft.parallel.placement import Mesh
from weft.parallel.validate import validate
from weft.program.graph import Phase


def ideal(count: int):
    """A machine whose links have no latency and whose devices compute in no time."""
    (group,) = preset("dgx-h100x1").groups
    fast = {name: derived(1e30, "FLOP/s", "test") for name in group.device.matmul_flops_per_s}
    device = replace(
        group.device,
        matmul_flops_per_s=fast,
        vector_flops_per_s=derived(1e30, "op/s", "test"),
        memory_bytes_per_s=derived(1e30, "B/s", "test"),
        launch_s=derived(0.0, "s", "test"),
    )
    link = replace(group.link, latency_s=derived(0.0, "s", "test"), curves=())
    return replace(
        preset("dgx-h100x1"),
        groups=(replace(group, device=device, link=link, devices_per_node=count),),
    )


@given(
    st.sampled_from([8, 16, 64, 256, 1024]),
    st.sampled_from([16, 64, 256]),
    st.sampled_from([2, 4, 8]),
)
def test_the_threshold_is_that_of_the_ring(rows: int, width: int, count: int) -> None:
    # Inner layers share no factor with others here: each is m x 4 m between two of its own.
    program = mlp(num_layers=1, batch=rows, width=width, hidden=lambda _: 4 * width)
    products = gradient_products(program)
    assert products
    paying = paying_products(program, ideal(count), Mesh((count,)))
    for product in products:
        n, m = program.nodes[product.node].outputs[0].shape
        both = {f for p in products if p is not product for f in p.factors}
        if not both & set(product.factors):
            assert (product.node in paying) == sends_less(rows, m, n)


def test_every_weight_of_a_linear_layer_has_one() -> None:
    program = mlp(num_layers=3, batch=8, width=16)
    weights = {i.node for i in program.inputs if len(program.nodes[i.node].outputs[0].shape) == 2}
    products = gradient_products(program)
    assert {p.parameter for p in products} == {
        i.node for i in program.inputs if i.role.is_persistent and i.node in weights
    }
    assert all(program.nodes[p.node].phase is Phase.BACKWARD for p in products)


def test_a_plan_gathers_factors_and_reduces_nothing_of_them() -> None:
    program = mlp(num_layers=2, batch=8, width=512)
    machine = devices(4)
    plan = expert_plan(program, machine, dp=4, factors=True)
    chosen = paying_products(program, machine, Mesh((4,)))
    assert chosen
    local = validate(plan, program)
    moved = [step for step in local.instructions if isinstance(step, Collective)]
    reduced = {step.node for step in moved if step.kind is CollectiveKind.ALL_REDUCE}
    gathered = {step.node for step in moved if step.kind is CollectiveKind.ALL_GATHER}
    assert not reduced & chosen
    factors = {f.node for p in gradient_products(program) if p.node in chosen for f in p.factors}
    assert gathered & factors
    plain = expert_plan(program, machine, dp=4)
    assert plan.prediction.step_s < plain.prediction.step_s


def test_many_rows_send_no_factors() -> None:
    program = mlp(num_layers=2, batch=1 << 14, width=64)
    assert not paying_products(program, devices(4), Mesh((4,)))
    with pytest.raises(InputError, match="cheaper to send"):
        expert_plan(program, devices(4), dp=4, factors=True)


def test_factors_beside_other_degrees_are_refused() -> None:
    program = mlp(num_layers=2, batch=8, width=512)
    with pytest.raises(InputError, match="data parallel alone"):
        expert_plan(program, devices(4), dp=2, tp=2, factors=True)
