"""Which nodes of a graph form regions: memory-intensive, convex, and worth a kernel."""

from __future__ import annotations

import operator as python_operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from math import prod

import torch
from sympy import Symbol
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.fx.node import Argument, map_aggregate
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import OperatorSupportBase
from torch.utils._pytree import tree_leaves

from weft.capture.dtypes import from_torch_dtype
from weft.capture.region import Like, program_of_nodes
from weft.core.errors import InputError, WeftError
from weft.fusion.lower import lower
from weft.fusion.region import Region
from weft.fusion.sizes import hint, is_size, layout, size_of, symbols_of, unknown

__all__ = ["Candidate", "candidates", "is_stitchable", "is_view"]

aten = torch.ops.aten

_VIEWS = frozenset(
    {
        *(aten.view.default, aten.reshape.default, aten._unsafe_view.default),
        *(aten.permute.default, aten.transpose.int, aten.t.default, aten.alias.default),
        *(aten.expand.default, aten.unsqueeze.default, aten.squeeze.default),
        *(aten.squeeze.dim, aten.squeeze.dims, aten.slice.Tensor, aten.select.int),
        *(aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int),
        *(aten.as_strided.default, aten.detach.default, aten.lift_fresh_copy.default),
        *(aten.diagonal.default, aten.unfold.default),
    }
)
"""Operators that move nothing where they stand alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A region of a graph.

    Attributes:
        nodes: its nodes, in order.
        inputs: nodes outside that it reads.
        outputs: nodes inside that others read.
        region: the same as a region, at the sizes that were seen when the graph was captured.
        is_symbolic: whether it will be run at others too.
        device: of all its tensors.
    """

    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]
    region: Region
    is_symbolic: bool
    device: torch.device


def candidates(module: fx.GraphModule) -> list[Candidate]:
    """All regions of a graph that could be compiled, the first one first."""
    partitioner = CapabilityBasedPartitioner(
        module, _Support(set(unknown(module.graph))), allows_single_node_partition=True
    )
    order = {node: number for number, node in enumerate(module.graph.nodes)}
    found: list[Candidate] = []
    for partition in partitioner.propose_partitions():
        for nodes in _parts(sorted(partition.nodes, key=order.__getitem__)):
            if _is_worth_a_look(nodes):
                candidate = _candidate(nodes)
                if candidate is not None:
                    found.append(candidate)
    return sorted(found, key=lambda c: order[c.nodes[0]])


LEAST = 2
"""Operators that compute, below which a region is left alone: one Inductor compiles as well."""


class _Support(OperatorSupportBase):
    """Knows single nodes; asks for each kind of node once."""

    def __init__(self, sizes: set[Symbol]) -> None:
        self._sizes = sizes
        self._known: dict[object, bool] = {}

    def is_node_supported(self, submodules: object, node: fx.Node) -> bool:
        if node.op != "call_function":
            return False
        if node.target is python_operator.getitem:
            source = node.args[0]
            return isinstance(source, fx.Node) and self.is_node_supported(submodules, source)
        if not isinstance(node.target, OpOverload):
            return False
        try:
            key = _key(node, self._sizes)
        except InputError:
            return False
        if key not in self._known:
            self._known[key] = is_stitchable(node)
        return self._known[key]


def _key(node: fx.Node, sizes: set[Symbol]) -> object:
    """Equal for nodes that are alike.

    Raises:
        InputError: a tensor or a number is not what kernels take.
    """
    parts: list[object] = [node.target]
    devices = set[torch.device]()
    values = [node.meta.get("val"), *(source.meta.get("val") for source in node.all_input_nodes)]
    for value in tree_leaves(values):
        if not isinstance(value, Tensor | torch.SymInt | torch.SymFloat):
            raise _not_taken(value)
        _require_known(value, sizes)
        if isinstance(value, Tensor):
            if not _is_taken(value):
                raise _not_taken(value)
            parts.append((*layout(value), value.dtype, value.device))
            devices.add(value.device)
    if len(devices) > 1:
        raise _not_taken(devices)
    args = (node.args, tuple(sorted(node.kwargs.items())))
    for arg in tree_leaves(args):
        _require_known(arg, sizes)
    parts.append(map_aggregate(args, _without_tensors))
    return repr(parts)


def _require_known(value: object, sizes: set[Symbol]) -> None:
    """That a size follows from those of the graph's inputs, by operations that are known."""
    if not symbols_of(value) <= sizes:
        raise _not_taken(value)
    many = (*value.shape, *value.stride()) if isinstance(value, Tensor) else (value,)
    for one in many:
        if isinstance(one, torch.SymInt | torch.SymFloat):
            size_of(one, lambda _: 0)


def _not_taken(value: object) -> InputError:
    return InputError(need="tensors of known dims in one memory", got=str(value))


def _without_tensors(arg: Argument) -> Argument:
    """An argument of a node as it was when the graph was captured; nothing for tensors."""
    if isinstance(arg, fx.Node):
        return hint(arg.meta["val"]) if is_size(arg) else None
    return hint(arg)


DEVICES = ("cpu", "cuda")
"""Where kernels run."""


def _is_taken(tensor: Tensor) -> bool:
    if tensor.device.type not in DEVICES or tensor.layout is not torch.strided:
        return False
    try:
        from_torch_dtype(tensor.dtype)
    except WeftError:
        return False
    return 0 < prod(layout(tensor)[0]) < 2**31


def is_stitchable(node: fx.Node) -> bool:
    """Whether a node alone could be a region."""
    several = isinstance(node.meta["val"], list | tuple)
    outputs = list(node.users) if several else [node]
    nodes = [node, *outputs] if several else [node]
    if not outputs:
        return False
    try:
        lower(_region(nodes, _inputs(nodes), outputs))
    except (WeftError, AssertionError):
        return False
    return True


def is_view(node: fx.Node) -> bool:
    """Whether a node moves nothing where it stands alone."""
    if node.target is python_operator.getitem:
        source = node.args[0]
        return isinstance(source, fx.Node) and is_view(source)
    return node.target in _VIEWS


def _is_worth_a_look(nodes: Sequence[fx.Node]) -> bool:
    return sum(not is_view(node) for node in nodes) >= LEAST


def _parts(nodes: Sequence[fx.Node]) -> list[list[fx.Node]]:
    """Parts of a partition that become regions.

    Views that others read are left to these. Where a part would then wait for its own result, since
    it reads such a view of it, views of what the partition makes stay where it reads them.
    """
    parts = _connected(_peeled(nodes))
    return parts if _are_ordered(nodes, parts) else _connected(_peeled(nodes, keeps_own=True))


def _are_ordered(nodes: Sequence[fx.Node], parts: Sequence[Sequence[fx.Node]]) -> bool:
    """Whether parts can be computed one after the other, each at once."""
    part = {n: k for k, own in enumerate(parts) if _is_worth_a_look(own) for n in own}
    inside = set(nodes)
    before: dict[object, set[object]] = {}
    for node in nodes:
        own = part.get(node, node)
        sources = (part.get(s, s) for s in node.all_input_nodes if s in inside)
        before.setdefault(own, set()).update(source for source in sources if source != own)
    try:
        TopologicalSorter(before).prepare()
    except CycleError:
        return False
    return True


def _peeled(nodes: Sequence[fx.Node], *, keeps_own: bool = False) -> list[fx.Node]:
    """Without views that others read: these take the view themselves, for nothing.

    Args:
        nodes: in order.
        keeps_own: whether views of what the nodes make stay if one of them reads them.
    """
    kept = dict.fromkeys(nodes)
    changed = True
    while changed:
        changed = False
        for node in reversed(list(kept)):
            if not is_view(node):
                continue
            readers = [user in kept for user in node.users]
            is_own = any(readers) and any(source in kept for source in node.all_input_nodes)
            stays = all(readers) or (keeps_own and is_own)
            if not stays or not readers or _is_part_of(node, kept):
                del kept[node]
                changed = True
    return list(kept)


def _is_part_of(node: fx.Node, kept: Mapping[fx.Node, None]) -> bool:
    """Whether a node takes one tensor of several that were made outside."""
    return node.target is python_operator.getitem and node.args[0] not in kept


SHARED = 0.25
"""Elements of a tensor that two parts of a region both read, over the larger one's largest tensor,
from which on they stay together. Derived: less is not worth waiting for one another."""


SMALL = 2**20
"""Elements of a tensor up to which two parts that share any input at all stay together: a call less
is worth more than what is kept alive for a moment. Derived: a call takes some ten microseconds, as
does reading four megabytes from a cache."""


def _connected(nodes: Sequence[fx.Node]) -> list[list[fx.Node]]:
    """Parts that have something in common: results, or a tensor of some size that both read.

    What has not would run later than it could, and keep its inputs alive until then.
    """
    part = {node: number for number, node in enumerate(nodes)}
    size = {number: _largest(node) for node, number in part.items()}

    def join(one: int, other: int) -> None:
        if one != other:
            size[one] = max(size[one], size[other])
            for node, number in part.items():
                if number == other:
                    part[node] = one

    for node in nodes:
        for source in node.all_input_nodes:
            if source in part:
                join(part[source], part[node])
    for source in _inputs(nodes):
        readers = [node for node in source.users if node in part]
        for other in readers[1:]:
            first, second = part[readers[0]], part[other]
            largest = max(size[first], size[second])
            if largest <= SMALL or _largest(source) >= SHARED * largest:
                join(first, second)
    groups: dict[int, list[fx.Node]] = {}
    for node in nodes:
        groups.setdefault(part[node], []).append(node)
    return list(groups.values())


def _largest(node: fx.Node) -> int:
    """Elements of the largest tensor of a node."""
    value = node.meta.get("val")
    tensors = value if isinstance(value, list | tuple) else [value]
    return max((prod(layout(t)[0]) for t in tensors if isinstance(t, Tensor)), default=0)


def _candidate(nodes: Sequence[fx.Node]) -> Candidate | None:
    inside = set(nodes)
    outputs = [n for n in nodes if any(user not in inside for user in n.users)]
    if not outputs or any(not isinstance(n.meta["val"], Tensor) for n in outputs):
        return None
    if any(_overlaps(output.meta["val"]) for output in outputs):
        return None
    inputs = _inputs(nodes)
    if not inputs:
        return None  # constants: Inductor folds them
    device = outputs[0].meta["val"].device
    is_symbolic = any(symbols_of(node.meta["val"]) for node in (*nodes, *inputs))
    if is_symbolic and device.type != "cpu":
        return None  # kernels for sizes that vary are made on CPUs only
    return Candidate(
        nodes=tuple(nodes),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        region=_region(nodes, inputs, outputs),
        is_symbolic=is_symbolic,
        device=device,
    )


def _inputs(nodes: Sequence[fx.Node]) -> list[fx.Node]:
    inside = set(nodes)
    found: dict[fx.Node, None] = {}
    for node in nodes:
        for source in node.all_input_nodes:
            if source not in inside and not is_size(source):
                found[source] = None
    return list(found)


def _region(
    nodes: Sequence[fx.Node], inputs: Sequence[fx.Node], outputs: Sequence[fx.Node]
) -> Region:
    """The region of some nodes.

    Raises:
        WeftError: an operator cannot be stitched.
    """
    likes: dict[fx.Node, Like | int | float] = {}
    for node in inputs:
        shape, strides = layout(node.meta["val"])
        likes[node] = Like(shape=shape, strides=strides, dtype=node.meta["val"].dtype)
    program, values = program_of_nodes(nodes, {**likes, **_sizes(nodes)}, outputs, "region")
    return Region(
        program=program,
        outputs=values,
        input_strides=tuple(layout(node.meta["val"])[1] for node in inputs),
        output_strides=tuple(layout(node.meta["val"])[1] for node in outputs),
    )


def _sizes(nodes: Sequence[fx.Node]) -> dict[fx.Node, int | float]:
    """Sizes that nodes read, as they were when the graph was captured."""
    read = (source for node in nodes for source in node.all_input_nodes)
    return {source: hint(source.meta["val"]) for source in read if is_size(source)}


def _overlaps(tensor: Tensor) -> bool:
    """Whether elements share memory."""
    reach = 1
    for size, stride in sorted(zip(*layout(tensor), strict=True), key=lambda pair: pair[1]):
        if size > 1:
            if stride < reach:
                return True
            reach = stride * size
    return False
