"""Every operator in torch, on the parts of pretended devices, against the undivided reference."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.property.rule_calls import NAMES, Sample, calls
from tests.property.rule_devices import collect, distribute
from tests.property.test_rules_sound import (
    assert_equal_outputs,
    draw_arrays,
    run_whole,
    strategy_of,
)
from weft.core.errors import VerifyError
from weft.parallel.placement import PARTIAL, PARTIAL_MAX, Mesh
from weft.parallel.plan import ParallelPlan, Prediction, Strategy
from weft.parallel.rules import rules
from weft.parallel.spmd import lower
from weft.parallel.strategies import fits
from weft.program.builder import Builder
from weft.program.graph import Input, Node, Program, Role, Value, map_values
from weft.program.types import DType, TensorType
from weft.runtime.lower import eager_module
from weft.runtime.place import Place

NOTHING = Prediction(
    step_s=0, compute_s=0, communication_s=0, exposed_s=0, peak_bytes=0, state_bytes=0
)


def plan_of(program, mesh, strategies, copies=()):
    return ParallelPlan(
        program_name=program.name,
        program_digest=program.digest,
        machine_name="none",
        machine_digest="none",
        mesh=mesh,
        strategies=tuple(strategies),
        copies=tuple(copies),
        prediction=NOTHING,
    )


def wanted_outputs(sample):
    """Outputs that the call's mask does not leave out."""
    mask = (True,) * len(sample.outputs)
    if sample.op in ("convolution_backward.default", "native_layer_norm_backward.default"):
        mask = sample.args[-1]
    return [number for number, wanted in enumerate(mask) if wanted]


def one_call(sample, strategy, mesh):
    """A program and plan of one node. Each operand is an input; outputs update other inputs."""
    nodes, inputs, strategies = [], [], []

    def add_input(name, tensor, sharding):
        nodes.append(Node(op="input", args=(name,), outputs=(tensor,)))
        inputs.append(Input(name=name, role=Role.BUFFER, node=len(nodes) - 1))
        strategies.append(Strategy((sharding,), ()))
        return Value(len(nodes) - 1)

    operands = [
        add_input(f"operand{k}", tensor, strategy.operands[k])
        for k, tensor in enumerate(sample.operands)
    ]
    whole = (-1,) * mesh.num_axes
    loss = add_input("loss", TensorType(DType.F32, ()), whole)
    kept = wanted_outputs(sample)
    targets = [add_input(f"out{n}", sample.outputs[n], strategy.outputs[n]) for n in kept]
    given = iter(operands)
    args = map_values(sample.args, lambda _: next(given))
    nodes.append(Node(op=sample.op, args=args, outputs=sample.outputs))
    strategies.append(strategy)
    made = len(nodes) - 1
    program = Program(
        name="call",
        nodes=tuple(nodes),
        inputs=tuple(inputs),
        loss=loss,
        updates=tuple((t.node, Value(made, n)) for t, n in zip(targets, kept, strict=True)),
    )
    return program, plan_of(program, mesh, strategies)


def as_tensor(array):
    return torch.from_numpy(np.array(array, order="C"))


def run_in_torch(sample, strategy, mesh_shape, arrays, rng):
    """Outputs computed by the runtime's module of each device, and put together."""
    mesh = Mesh(mesh_shape)
    program, plan = one_call(sample, strategy, mesh)
    local = lower(program, plan)
    shards = [
        distribute(array, sharding, mesh_shape, rng)
        for array, sharding in zip(arrays, strategy.operands, strict=True)
    ]
    parts = {}
    for device in itertools.product(*map(range, mesh_shape)):
        place = Place(mesh=mesh, coordinate=device, device=torch.device("cpu"), groups=("",) * 2)
        module = eager_module(local, program, place)
        inputs = [as_tensor(shard[device]) for shard in shards]
        unused = [torch.zeros(())] * (len(local.inputs) - len(inputs))
        parts[device] = [t.numpy() for t in module([*inputs, *unused])[1:]]
    return [
        collect({d: p[k] for d, p in parts.items()}, strategy.outputs[n], mesh_shape)
        for k, n in enumerate(wanted_outputs(sample))
    ]


def expected_outputs(sample, arrays):
    outputs = run_whole(sample, arrays)
    return [outputs[n] for n in wanted_outputs(sample)]


@pytest.mark.parametrize("op", NAMES)
@settings(max_examples=12)
@given(data=st.data(), seed=st.integers(0, 999))
def test_every_operator_on_parts_gives_the_parts_of_the_whole(op, data, seed):
    sample, rng = data.draw(calls(op)), np.random.default_rng(seed)
    arrays = draw_arrays(sample, rng)
    expected = expected_outputs(sample, arrays)
    for rule in rules(sample.op, sample.args, sample.operands, sample.outputs):
        strategy = strategy_of(rule)
        if fits(Mesh((2,)), strategy, sample.operands, sample.outputs):
            got = run_in_torch(sample, strategy, (2,), arrays, rng)
            assert_equal_outputs(got, expected, rule)


def strewn(array):
    """A part of a larger tensor, whose dims lie in memory in another order."""
    order = tuple(reversed(range(array.ndim)))
    whole = torch.from_numpy(np.array(array)).permute(order)
    larger = torch.full([n + 2 for n in whole.shape], 1, dtype=whole.dtype)
    if larger.is_floating_point():
        larger.fill_(torch.nan)
    part = larger[tuple(slice(1, 1 + n) for n in whole.shape)]
    return part.copy_(whole).permute(order)


@pytest.mark.parametrize("op", [name for name in NAMES if name not in ("full", "iota")])
@settings(max_examples=3)
@given(data=st.data(), seed=st.integers(0, 999))
def test_every_operator_heeds_the_strides_of_its_operands(op, data, seed):
    sample, rng = data.draw(calls(op)), np.random.default_rng(seed)
    arrays, whole, mesh = draw_arrays(sample, rng), (-1,), Mesh((1,))
    strategy = Strategy((whole,) * len(sample.outputs), (whole,) * len(sample.operands))
    program, plan = one_call(sample, strategy, mesh)
    place = Place(mesh=mesh, coordinate=(0,), device=torch.device("cpu"), groups=("",))
    local = lower(program, plan)
    inputs = [*map(strewn, arrays)]
    unused = [torch.zeros(())] * (len(local.inputs) - len(inputs))
    got = eager_module(local, program, place)([*inputs, *unused])[1:]
    assert_equal_outputs([t.numpy() for t in got], expected_outputs(sample, arrays), sample)


def test_one_row_out_of_a_message_is_normalized_as_it_is():
    mesh, whole = Mesh((1,)), (-1,)
    rows, mean, weight = (TensorType(DType.F64, shape) for shape in ((2, 3, 4), (2, 3, 1), (4,)))
    operands = (rows, rows, mean, mean, weight, weight)
    grad, x, *rest = (Value(n) for n in range(len(operands)))
    sample = Sample(
        "native_layer_norm_backward.default",
        (grad, x, (4,), *rest, (True, True, True)),
        operands,
        (rows, weight, weight),
    )
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=of.shape) for of in operands]
    program, plan = one_call(sample, Strategy((whole,) * 3, (whole,) * 6), mesh)
    place = Place(mesh=mesh, coordinate=(0,), device=torch.device("cpu"), groups=("",))
    # Both ranks of two have sent one row of means and of deviations, side by side.
    message = torch.from_numpy(np.concatenate([a.reshape(2, -1) for a in arrays[2:4]], axis=1))
    parts = [message[:, :3].reshape(2, 3, 1), message[:, 3:].reshape(2, 3, 1)]
    assert not any(part.is_contiguous() for part in parts)
    inputs = [*map(torch.from_numpy, arrays[:2]), *parts, *map(torch.from_numpy, arrays[4:])]
    made = eager_module(lower(program, plan), program, place)
    got = made([*inputs, *[torch.zeros(())] * 4])[1:]
    assert_equal_outputs([t.numpy() for t in got], expected_outputs(sample, arrays), sample)


# Operators that must know where they are: their offsets have to add up over two axes.
PLACED = (
    "iota",
    "uniform",
    "uniform_part",
    "embedding.default",
    "embedding_dense_backward.default",
)


@pytest.mark.parametrize("op", PLACED)
@settings(max_examples=25)
@given(data=st.data(), seed=st.integers(0, 999))
def test_offsets_of_two_axes_add_up(op, data, seed):
    sample, rng = data.draw(calls(op)), np.random.default_rng(seed)
    mesh = data.draw(st.sampled_from(((2, 3), (3, 2))))
    choices = st.sampled_from(rules(sample.op, sample.args, sample.operands, sample.outputs))
    strategy = strategy_of(data.draw(choices), data.draw(choices))
    assume(fits(Mesh(mesh), strategy, sample.operands, sample.outputs))
    assume(not any({PARTIAL, PARTIAL_MAX} <= set(s) for s in strategy.outputs + strategy.operands))
    arrays = draw_arrays(sample, rng)
    got = run_in_torch(sample, strategy, mesh, arrays, rng)
    assert_equal_outputs(got, expected_outputs(sample, arrays), strategy)


@settings(max_examples=25)
@given(data=st.data())
def test_a_compiler_infers_the_types_of_the_slots_for_gradients_of_convolutions(data):
    sample = data.draw(calls("convolution_backward.default"))
    choices = rules(sample.op, sample.args, sample.operands, sample.outputs)
    strategy = strategy_of(data.draw(st.sampled_from(choices)))
    mesh = Mesh((2,))
    assume(fits(mesh, strategy, sample.operands, sample.outputs))
    program, plan = one_call(sample, strategy, mesh)
    local = lower(program, plan)
    place = Place(mesh=mesh, coordinate=(1,), device=torch.device("cpu"), groups=("",))
    module = eager_module(local, program, place)
    with FakeTensorMode():
        shapes = [local.slots[source.slot].shape for source in local.inputs]
        made = module([torch.empty(shape, dtype=torch.float64) for shape in shapes])
    for tensor, (_, slot) in zip(made[1:], local.updates, strict=True):
        assert tuple(tensor.shape) == local.slots[slot].shape


def test_a_fractional_range_rounds_on_parts_as_on_the_whole():
    tensor = TensorType(DType.F32, (6,))
    sample = Sample("iota", (6, 0.1, 0.3, "f32"), (), (tensor,))
    strategy = Strategy(((0,),), ())
    got = run_in_torch(sample, strategy, (2,), (), np.random.default_rng(0))
    whole = run_in_torch(sample, Strategy(((-1,),), ()), (1,), (), np.random.default_rng(0))
    assert np.array_equal(got[0], whole[0])
    np.testing.assert_allclose(whole[0], 0.1 + 0.3 * np.arange(6), rtol=1e-6)


def test_an_operator_without_a_torch_form_is_refused_by_name():
    builder = Builder("odd")
    x = builder.input("x", Role.BATCH, TensorType(DType.F32, (2,)))
    good = builder.build(builder.add("view", x, (2,)), ())
    nodes = (good.nodes[0], Node(op="fold", args=(x,), outputs=good.nodes[0].outputs))
    program = Program(name="odd", nodes=nodes, inputs=good.inputs, loss=Value(1))
    whole = ((-1,),)
    plan = plan_of(program, Mesh((1,)), (Strategy(whole, ()), Strategy(whole, whole)))
    place = Place(mesh=Mesh((1,)), coordinate=(0,), device=torch.device("cpu"), groups=("",))
    with pytest.raises(VerifyError, match="an operator of the table") as caught:
        eager_module(lower(program, plan), program, place)
    assert caught.value.got == "'fold'"
