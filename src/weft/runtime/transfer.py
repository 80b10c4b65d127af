"""One collective on its way into a torch graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from torch import fx

from weft.parallel.local import Collective
from weft.parallel.placement import Mesh
from weft.program.types import TensorType
from weft.runtime.place import Place

__all__ = ["Finish", "Transfer"]

aten = torch.ops.aten
c10d = torch.ops._c10d_functional

Finish: TypeAlias = Callable[[], fx.Node]
"""Appends what remains to be done before the result can be read, and returns its node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One collective on its way into a graph.

    Attributes:
        graph: where nodes are appended.
        collective: which.
        value: what the rank has of the tensor; None if it only takes some of it up.
        source, target: local types before and after.
        place: where the rank stands at the home where the collective takes place.
        line: shape of the tensor, whole along the axis; () where ranks have equal parts.
        leads_to: mesh of the home that a move leads to; None of other collectives.
    """

    graph: fx.Graph
    collective: Collective
    value: fx.Node | None
    source: TensorType
    target: TensorType
    place: Place
    line: tuple[int, ...] = ()
    leads_to: Mesh | None = None

    @property
    def members(self) -> tuple[int, ...]:
        """Positions along the axis of the ranks that take part."""
        own = self.place.mesh.members(self.collective.axis)
        if self.leads_to is None:
            return own
        return tuple(sorted({*own, *self.leads_to.members(self.collective.axis)}))

    @property
    def count(self) -> int:
        """Ranks that take part."""
        return len(self.members)

    @property
    def group(self) -> str:
        """Name of the group of those ranks."""
        return self.place.group(self.collective.axis, self.members)

    @property
    def own(self) -> fx.Node:
        """What the rank has of the tensor."""
        assert self.value is not None
        return self.value

    def add(self, target: Callable[..., Any], *args: object, **kwargs: object) -> fx.Node:
        """Append a function call."""
        return self.graph.call_function(target, cast("Any", args), cast("Any", kwargs))

    def reshape(self, node: fx.Node, *size: int) -> fx.Node:
        """Append a reshape."""
        return self.add(aten.reshape.default, node, list(size))

    def move_dim(self, node: fx.Node, source: int, target: int, rank: int) -> fx.Node:
        """Append a permutation that takes one dim to another position."""
        if source == target:
            return node
        order = [dim for dim in range(rank) if dim != source]
        order.insert(target, source)
        return self.add(aten.permute.default, node, order)

    def contiguous(self, node: fx.Node) -> fx.Node:
        """Append a copy into row-major order, free for what is in it already."""
        return self.add(aten.contiguous.default, node)

    @property
    def by_exchange(self) -> bool:
        """True if all-gather and reduce-scatter are all-to-alls here."""
        return self.place.device.type == "cpu"

    def exchange(self, parts: fx.Node) -> fx.Node:
        """Append the start of an all-to-all of [count, ...], one part for each rank."""
        one_each = [1] * self.count
        return self.add(c10d.all_to_all_single.default, parts, one_each, one_each, self.group)

    def waited(self, node: fx.Node) -> fx.Node:
        """Append the wait for a collective."""
        return self.add(c10d.wait_tensor.default, node)
