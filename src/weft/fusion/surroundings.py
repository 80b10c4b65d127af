"""What a region stands in the midst of, as far as it decides what Inductor would take for it.

Inductor computes some tensors at each place where they are read instead of writing them: what is
looked up or random, and results that several read, unless they are dear. To Inductor such a tensor
is none; to a kernel of weft's it is one. A comparison that two regions read is the usual case:
Inductor compares twice, and writes no mask.

Source: torch 2.13, `torch/_inductor/ir.py`: `StorageBox.should_realize_on_reuse`;
`torch/_inductor/config.py`: `realize_reads_threshold`, `_realize_opcount_threshold_default`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import fx
from torch._inductor import inductor_prims
from torch._ops import OpOverload

from weft.core.errors import WeftError
from weft.fusion.partition import Candidate, is_stitchable, is_view
from weft.program.operators import Kind, operator

__all__ = ["Surroundings", "is_computed_again", "surroundings"]

aten = torch.ops.aten

INLINED = frozenset(
    {
        *(aten.embedding.default, aten.index.Tensor, aten.constant_pad_nd.default),
        *(inductor_prims.random, inductor_prims.randint),
    }
)
"""Operators that regions lack and that Inductor computes in the loops of who reads them."""
MOST_READS, MOST_OPERATORS = 4, 30
"""Tensors and operators of a result that several read, above which Inductor writes it."""
DEAR = frozenset({"exp", "log", "log10", "log1p", "log2", "sigmoid", "tanh"})
"""Functions with which it does so in any case."""
FEW = 16
"""Operators beside a region up to which all fits the caches that hold code. Derived: half of those
with which a call was measured from the caches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What surrounds a region; nothing if it is a graph of its own.

    Attributes:
        unwritten_bytes: of inputs that Inductor computes where they are read, if only there, and
            that have to be written to memory for a kernel of weft's [bytes].
        unwritten_bools: elements of bools among them.
        made_beside: numbers of inputs that Inductor computes, and may write where it likes: parts
            of a concatenation, where they belong. Empty for a region without one.
        computed_there: numbers of inputs that it computes where they are read.
        computed_again: numbers of outputs that it computes where they are read.
        is_hot: whether so little else is computed that code stays in the caches between two calls.
    """

    unwritten_bytes: int = 0
    unwritten_bools: int = 0
    made_beside: frozenset[int] = frozenset()
    computed_there: frozenset[int] = frozenset()
    computed_again: frozenset[int] = frozenset()
    is_hot: bool = False


def surroundings(candidate: Candidate) -> Surroundings:
    """What surrounds a region in its graph."""
    inside = set(candidate.nodes)
    there = {n: node for n, node in enumerate(candidate.inputs) if is_computed_again(node)}
    unwritten = [
        node
        for n, node in enumerate(candidate.inputs)
        if n in there or (node.target in INLINED and all(user in inside for user in node.users))
    ]
    tensors = [node.meta["val"] for node in unwritten]
    concatenates = any(node.target is aten.cat.default for node in candidate.nodes)
    return Surroundings(
        unwritten_bytes=sum(tensor.nbytes for tensor in tensors),
        unwritten_bools=sum(t.numel() for t in tensors if t.dtype is torch.bool),
        made_beside=frozenset(
            number
            for number, node in enumerate(candidate.inputs)
            if concatenates and _is_computed(node)
        ),
        computed_there=frozenset(there),
        computed_again=frozenset(
            n for n, node in enumerate(candidate.outputs) if is_computed_again(node)
        ),
        is_hot=sum(1 for _ in _others(candidate)) <= FEW,
    )


def is_computed_again(node: fx.Node) -> bool:
    """Whether Inductor computes a result at each place where it is read, rather than write it."""
    if _kind(node) is not Kind.POINTWISE or not all(map(_is_in_a_loop, node.users)):
        return False
    seen, waiting, reads, operators = set[fx.Node](), [node], 0, 0
    while waiting:
        source = waiting.pop()
        if source in seen:
            continue
        seen.add(source)
        kind = _kind(source)
        if kind is Kind.POINTWISE or is_view(source):
            if str(source.target).split(".")[-2] in DEAR:
                return False
            operators += kind is Kind.POINTWISE
            waiting.extend(source.all_input_nodes)
        else:
            reads += kind is not Kind.CREATE
    return reads <= MOST_READS and operators <= MOST_OPERATORS


def _kind(node: fx.Node) -> Kind | None:
    """What sort of operator a node is; None if it is none that regions know."""
    if not isinstance(node.target, OpOverload):
        return None
    try:
        return operator(str(node.target).removeprefix("aten.")).kind
    except WeftError:
        return None


def _is_in_a_loop(node: fx.Node) -> bool:
    """Whether Inductor computes what reads a tensor, in a loop of its own making."""
    if is_view(node):
        return all(map(_is_in_a_loop, node.users))
    return node.target is not aten.cat.default and _is_computed(node)


def _is_computed(node: fx.Node) -> bool:
    """Whether a node is an operator that regions know, and no view."""
    return isinstance(node.target, OpOverload) and not is_view(node) and is_stitchable(node)


def _others(candidate: Candidate) -> Iterator[fx.Node]:
    """What else is computed in the graph."""
    inside = set(candidate.nodes)
    for node in candidate.nodes[0].graph.nodes:
        if node.op == "call_function" and not is_view(node) and node not in inside:
            yield node
