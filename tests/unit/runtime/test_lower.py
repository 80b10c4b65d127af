"""The graph of a rank's step: order of waits, life of tensors, updates."""

import weakref
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from weft.parallel.local import Collective, CollectiveKind, LocalInput, LocalProgram, Run
from weft.parallel.placement import PARTIAL, REPLICATED, Mesh
from weft.parallel.plan import Strategy
from weft.parallel.prefetch import with_last_use
from weft.program.builder import Builder
from weft.program.graph import Phase, Role, Value
from weft.program.types import DType, TensorType
from weft.runtime.lower import eager_module, in_place_module
from weft.runtime.place import Place

X = TensorType(DType.F32, (4, 6))
ONE = Place(mesh=Mesh((1,)), coordinate=(0,), device=torch.device("cpu"), groups=("",))
TWO = Place(mesh=Mesh((2,)), coordinate=(1,), device=torch.device("cpu"), groups=("pair",))
STARTS = {
    "cpu": "_c10d_functional.all_to_all_single.default",
    "cuda": "_c10d_functional.all_reduce.default",
}
"""How a small all-reduce starts; only the graph is made, so no such device is needed."""
R, P = (REPLICATED,), (PARTIAL,)


WHOLE = Strategy((R,), (R,))


def run(node, op, args, outputs, strategy=WHOLE):
    return Run(node=node, op=op, args=args, outputs=outputs, strategy=strategy, phase=Phase.FORWARD)


def local_of(mesh, slots, inputs, instructions, loss, updates=()):
    return with_last_use(
        LocalProgram(
            mesh=mesh,
            slots=slots,
            inputs=tuple(LocalInput(name=n, slot=s, sharding=R) for n, s in inputs),
            instructions=tuple(instructions),
            last_use=(),
            loss=loss,
            updates=updates,
        )
    )


def chain():
    """exp of x, summed over the ranks, while y is negated; then their sum."""
    b = Builder("chain")
    x, y = b.input("x", Role.BATCH, X), b.input("y", Role.BATCH, X)
    e, n = b.add("exp.default", x), b.add("neg.default", y)
    total = b.add("sum", b.add("add.Tensor", e, n), (0, 1))
    program = b.build(total)
    local = local_of(
        Mesh((2,)),
        (X, X, X, X, X, X, TensorType(DType.F32, ())),
        (("x", 0), ("y", 1)),
        [
            run(2, "exp.default", (Value(0),), (2,), Strategy((P,), (R,))),
            Collective(
                kind=CollectiveKind.ALL_REDUCE,
                axis=0,
                source=2,
                target=3,
                node=2,
                phase=Phase.FORWARD,
                reduce="sum",
            ),
            run(3, "neg.default", (Value(1),), (4,)),
            run(4, "add.Tensor", (Value(3), Value(4)), (5,)),
            run(5, "sum", (Value(5), (0, 1)), (6,)),
        ],
        loss=6,
    )
    return local, program


def names(module):
    return [str(n.target) for n in module.graph.nodes if n.op == "call_function"]


@pytest.mark.parametrize("device", STARTS)
def test_a_collective_starts_where_it_stands_and_is_waited_for_at_its_first_reader(device):
    order = names(eager_module(*chain(), replace(TWO, device=torch.device(device))))
    start = order.index(STARTS[device])
    wait = order.index("_c10d_functional.wait_tensor.default")
    assert order.index("aten.exp.default") < start < order.index("aten.neg.default") < wait
    assert order.count("_c10d_functional.wait_tensor.default") == 1
    assert {*order[wait + 1 : order.index("aten.add.Tensor")]} <= {
        "aten.reshape.default",
        "aten.sum.dim_IntList",
    }


def test_one_rank_alone_communicates_nothing():
    local, program = chain()
    alone = local_of(Mesh((1,)), local.slots, (("x", 0), ("y", 1)), local.instructions, loss=6)
    module = eager_module(alone, program, ONE)
    assert not [name for name in names(module) if "c10d" in name]
    x, y = torch.randn(4, 6), torch.randn(4, 6)
    torch.testing.assert_close(module([x, y])[0], (x.exp() - y).sum())


def pair_of_sums(bundle):
    """Sums of x and of y over the ranks, then those of both."""
    b = Builder("pair")
    x, y = b.input("x", Role.BATCH, X), b.input("y", Role.BATCH, X)
    e, n = b.add("exp.default", x), b.add("neg.default", y)
    program = b.build(b.add("sum", b.add("add.Tensor", e, n), (0, 1)))

    def total(source, target, node):
        return Collective(
            kind=CollectiveKind.ALL_REDUCE,
            axis=0,
            source=source,
            target=target,
            node=node,
            phase=Phase.FORWARD,
            reduce="sum",
            bundle=bundle,
        )

    local = local_of(
        Mesh((2,)),
        (X, X, X, X, X, X, X, TensorType(DType.F32, ())),
        (("x", 0), ("y", 1)),
        [
            run(2, "exp.default", (Value(0),), (2,), Strategy((P,), (R,))),
            run(3, "neg.default", (Value(1),), (3,), Strategy((P,), (R,))),
            total(2, 4, 2),
            total(3, 5, 3),
            run(4, "add.Tensor", (Value(4), Value(5)), (6,)),
            run(5, "sum", (Value(6), (0, 1)), (7,)),
        ],
        loss=7,
    )
    return local, program


@pytest.mark.parametrize("device", STARTS)
@pytest.mark.parametrize(("bundle", "messages"), [(-1, 2), (0, 1)])
def test_neighbours_of_one_bundle_are_one_message(bundle, messages, device):
    place = replace(TWO, device=torch.device(device))
    order = names(eager_module(*pair_of_sums(bundle), place))
    assert order.count(STARTS[device]) == messages
    assert order.count("_c10d_functional.wait_tensor.default") == messages


class Alive(TorchDispatchMode):
    """Notes, before each operator, whether a tensor still lives."""

    def __init__(self, tensor):
        super().__init__()
        self.ref = weakref.ref(tensor)
        self.before = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.before[str(func)] = self.ref() is not None
        return func(*args, **(kwargs or {}))


def test_an_input_is_freed_after_its_last_reader():
    b = Builder("long")
    x = b.input("x", Role.BATCH, X)
    total = b.add("sum", b.add("neg.default", b.add("exp.default", x)), (0, 1))
    program = b.build(total)
    local = local_of(
        Mesh((1,)),
        (X, X, X, TensorType(DType.F32, ())),
        (("x", 0),),
        [
            run(1, "exp.default", (Value(0),), (1,)),
            run(2, "neg.default", (Value(1),), (2,)),
            run(3, "sum", (Value(2), (0, 1)), (3,)),
        ],
        loss=3,
    )
    module = eager_module(local, program, ONE)
    inputs = [torch.randn(4, 6)]
    with Alive(inputs[0]) as alive:
        module(inputs)
    assert alive.before["aten.exp.default"]
    assert not alive.before["aten.neg.default"]
    assert inputs == [None]


def test_what_nothing_reads_is_not_computed():
    local, program = chain()
    instructions = [*local.instructions, run(2, "exp.default", (Value(1),), (7,))]
    wasteful = local_of(Mesh((2,)), (*local.slots, X), (("x", 0), ("y", 1)), instructions, loss=6)
    assert names(eager_module(wasteful, program, TWO)) == names(eager_module(local, program, TWO))


def swap(op, argument):
    """Two square buffers, each of which becomes a view of the other."""
    square = TensorType(DType.F32, (3, 3))
    b = Builder("swap")
    first, second = b.input("a", Role.BUFFER, square), b.input("b", Role.BUFFER, square)
    new_a, new_b = b.add(op, second, argument), b.add(op, first, argument)
    loss = b.add("sum", first, (0, 1))
    program = b.build(loss, ((first, new_a), (second, new_b)))
    local = local_of(
        Mesh((1,)),
        (square, square, square, square, TensorType(DType.F32, ())),
        (("a", 0), ("b", 1)),
        [
            run(2, op, (Value(1), argument), (2,)),
            run(3, op, (Value(0), argument), (3,)),
            run(4, "sum", (Value(0), (0, 1)), (4,)),
        ],
        loss=4,
        updates=(("a", 2), ("b", 3)),
    )
    return local, program


@pytest.fixture
def buffers():
    return torch.arange(9.0).reshape(3, 3), torch.arange(9.0, 18.0).reshape(3, 3)


def test_next_values_are_contiguous(buffers):
    a, b = buffers
    _, new_a, new_b = eager_module(*swap("permute", (1, 0)), ONE)([a, b])
    assert torch.equal(new_a, b.T)
    assert torch.equal(new_b, a.T)
    assert new_a.is_contiguous()
    assert new_b.is_contiguous()


@pytest.mark.parametrize(("op", "argument"), [("permute", (1, 0)), ("view", (3, 3))])
def test_writing_in_place_reads_all_old_values_before_it_overwrites_any(buffers, op, argument):
    a, b = buffers
    old_a, old_b = a.clone(), b.clone()
    (loss,) = in_place_module(*swap(op, argument), ONE)(a, b)
    turned = (lambda x: x.T) if op == "permute" else (lambda x: x)
    assert torch.equal(a, turned(old_b))
    assert torch.equal(b, turned(old_a))
    assert loss == old_a.sum()
