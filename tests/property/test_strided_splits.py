"""A split of the last factor of a fused dim is a split of every block of it, wherever it goes.

Random forwards take a fused projection apart by views, transpositions and slices. The weight's
rows are numbered and the batch is all ones, so what a device holds says which rows it comes
from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ranks import Ranks
from weft.capture.fused import factorise
from weft.capture.simplify import simplify
from weft.machine.presets import preset
from weft.parallel.candidate import assemble
from weft.parallel.copies import Decision, copies_for
from weft.parallel.greedy import greedy_axis
from weft.parallel.local import Run
from weft.parallel.placement import Mesh
from weft.parallel.propagate import AxisRules, combine
from weft.parallel.reshard import Resharding
from weft.parallel.spmd import lower
from weft.program.builder import Builder
from weft.program.evaluate import evaluate
from weft.program.factors import block_dims, factored_dims
from weft.program.graph import Phase, Program, Role, Value
from weft.program.types import DType, TensorType
from weft.program.verify import verify

BATCH, TOKENS = 2, 3


@dataclass(frozen=True)
class Case:
    """A program, and how its fused dim divides."""

    program: Program
    blocks: int
    block: int
    devices: int
    size: int


class Chain:
    """A value whose dims have names, moved about at random; "r" dims are parts of the fused one."""

    def __init__(self, draw, builder, value, names):
        self.draw, self.builder, self.value, self.names = draw, builder, value, list(names)

    @property
    def shape(self):
        return self.builder.type_of(self.value).shape

    def view(self, shape, names):
        self.value, self.names = self.builder.add("view", self.value, tuple(shape)), list(names)

    def permute(self):
        order = self.draw(st.permutations(range(len(self.names))))
        self.value = self.builder.add("permute", self.value, tuple(order))
        self.names = [self.names[d] for d in order]

    def scale(self):
        if self.draw(st.booleans()):
            self.value = self.builder.add("mul.Scalar", self.value, 1.0)

    def split(self, dim, sizes, names):
        self.view(
            (*self.shape[:dim], *sizes, *self.shape[dim + 1 :]),
            (*self.names[:dim], *names, *self.names[dim + 1 :]),
        )

    def merge_free(self):
        """Merge two neighbours that are no parts of the fused dim, if there are any."""
        pairs = [d for d in range(len(self.names) - 1) if {*self.names[d : d + 2]} <= {"b", "t"}]
        if pairs and self.draw(st.booleans()):
            d = self.draw(st.sampled_from(pairs))
            size = self.shape[d] * self.shape[d + 1]
            self.view((*self.shape[:d], size, *self.shape[d + 2 :]), self.names)
            self.names.pop(d)

    def slice(self, dim, start, end):
        taken = self.builder.add("slice", self.value, dim, start, end, 1)
        return Chain(self.draw, self.builder, taken, self.names)


@st.composite
def cases(draw):
    devices = draw(st.sampled_from([2, 3]))
    blocks, heads = draw(st.integers(2, 5)), devices * draw(st.integers(1, 2))
    width = draw(st.integers(1, 3))
    block = heads * width
    b = Builder("fused")
    x = b.input("batch.x", Role.BATCH, TensorType(DType.F64, (BATCH, TOKENS, 1)))
    last = draw(st.booleans())
    shape, equation = ((1, -1), "btd,df->btf") if last else ((-1, 1), "btd,fd->btf")
    shape = tuple(blocks * block if n < 0 else n for n in shape)
    weight = b.input("weight", Role.PARAMETER, TensorType(DType.F64, shape))
    chain = Chain(draw, b, b.add("einsum", equation, x, weight), ["b", "t", "f"])
    chain.scale()
    chain.merge_free()
    by_view = draw(st.booleans())
    if by_view:
        inner = draw(st.sampled_from([(block,), (heads, width)]))
        chain.split(
            len(chain.names) - 1, (blocks, *inner), ("blocks", "heads", "rest")[: len(inner) + 1]
        )
    chain.permute()
    chain.scale()
    edges = range(blocks + 1)
    if by_view and draw(st.booleans()):
        # Several blocks at a time, unless that makes equal larger blocks.
        inside = draw(st.sets(st.integers(1, blocks - 1), min_size=1))
        uneven = sorted({0, *inside, blocks})
        edges = uneven if len(set(np.diff(uneven))) > 1 else edges
    loss = None
    for start, end in pairwise(edges):
        dim = chain.names.index("blocks" if by_view else "f")
        unit = 1 if by_view else block
        leaf = chain.slice(dim, start * unit, end * unit)
        total = _total(draw, leaf, by_view, heads, width)
        loss = total if loss is None else b.add("add.Tensor", loss, total)
    new = b.add("mul.Scalar", weight, 0.5, phase=Phase.UPDATE)
    program = b.build(loss, ((weight, new),))
    return Case(program, blocks, block, devices, blocks * block)


def _total(draw, leaf, by_view, heads, width):
    """The sum of a piece, after more moves."""
    if by_view and leaf.shape[leaf.names.index("blocks")] == 1:
        dim = leaf.names.index("blocks")
        leaf.view(
            (*leaf.shape[:dim], *leaf.shape[dim + 1 :]), [n for n in leaf.names if n != "blocks"]
        )
    if not by_view and draw(st.booleans()):
        leaf.split(leaf.names.index("f"), (heads, width), ("heads", "rest"))
    leaf.permute()
    leaf.scale()
    leaf.merge_free()
    return leaf.builder.add("sum", leaf.value, tuple(range(len(leaf.names))), False)


def planned(case, program):
    """Weights cut along the last factor of their fused dim; everything else follows."""
    mesh, machine = Mesh((case.devices,)), preset("dgx-h100x1")
    (source,) = [i for i in program.inputs if i.role is Role.PARAMETER]
    held = program.nodes[source.node].outputs[0].shape
    fused = next(g for g in factored_dims(held, source.shape) if len(g) > 1)
    assert block_dims(held, source.shape) == {fused[0]}
    rules = greedy_axis(program, {source.node: fused[1]}, case.devices)
    decision = Decision(combine([AxisRules(size=case.devices, rules=rules)]), {})
    copies = copies_for(program, decision, Resharding(machine, mesh))
    plan = assemble(
        "cut", program, machine, mesh, decision.strategies, copies, memory_limit_bytes=math.inf
    ).plan
    return plan, held


@settings(max_examples=150)
@given(cases())
def test_each_device_holds_its_part_of_every_block_and_nothing_moves(case):
    program = factorise(simplify(case.program))
    verify(program)
    plan, held = planned(case, program)
    assert held[-3:-1] == (case.blocks, case.block) or held[-2:] == (case.blocks, case.block)
    rows = np.arange(case.size, dtype=np.float64)
    inputs = {"batch.x": np.ones((BATCH, TOKENS, 1)), "weight": rows.reshape(held)}
    local = lower(program, plan)
    ranks = Ranks(program, local, inputs)
    seen = {device: [] for device in ranks.devices}
    for instruction in local.instructions:
        if not isinstance(instruction, Run):
            assert local.slots[instruction.source].shape == (), "only the loss is reduced"
            ranks.communicate(instruction)
            continue
        source = instruction.args[0] if instruction.op == "sum" else None
        if isinstance(source, Value) and local.slots[source.node].shape:
            for device, values in seen.items():
                values.append(ranks.slots[source.node][device].ravel())
        ranks.apply(instruction)
    parts = rows.reshape(case.blocks, case.devices, case.block // case.devices)
    for (which,), values in seen.items():
        expected = np.repeat(np.sort(parts[:, which].ravel()), BATCH * TOKENS)
        np.testing.assert_array_equal(np.sort(np.concatenate(values)), expected)


@settings(max_examples=100)
@given(cases())
def test_in_factors_a_program_computes_the_same(case):
    program = factorise(simplify(case.program))
    (source,) = [i for i in program.inputs if i.role is Role.PARAMETER]
    rng = np.random.default_rng(case.size)
    weight = rng.normal(size=case.program.nodes[1].outputs[0].shape)
    x = rng.normal(size=(BATCH, TOKENS, 1))
    wanted, before = evaluate(case.program, {"batch.x": x, "weight": weight})
    held = weight.reshape(program.nodes[source.node].outputs[0].shape)
    found, after = evaluate(program, {"batch.x": x, "weight": held})
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(after["weight"].reshape(weight.shape), before["weight"])
