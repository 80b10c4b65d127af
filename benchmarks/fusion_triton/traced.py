"""A graph of the suite as the back end gets it, and its regions run one by one."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._inductor.decomposition import select_decomp_table
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

from benchmarks.fusion.cases import Graph
from weft.fusion.partition import Candidate, candidates

__all__ = ["Traced", "traced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """A graph of ATen operators, and its regions."""

    module: fx.GraphModule
    regions: tuple[Candidate, ...]

    def run(
        self,
        kernels: Sequence[Callable[[Sequence[Tensor]], Sequence[Tensor]]],
        inputs: Sequence[Tensor],
    ) -> tuple[Tensor, ...]:
        """What the graph computes, each region by its kernel and the rest by torch."""
        nodes = list(self.module.graph.nodes)
        placeholders = [node for node in nodes if node.op == "placeholder"]
        known: dict[fx.Node, object] = dict(zip(placeholders, inputs, strict=True))
        region_of = {
            output: number for number, own in enumerate(self.regions) for output in own.outputs
        }

        def value(node: fx.Node) -> Any:  # noqa: ANN401
            if node not in known:
                number = region_of.get(node)
                if number is None:
                    args, kwargs = map_arg((node.args, node.kwargs), value)
                    assert callable(node.target)
                    known[node] = node.target(*args, **kwargs)
                else:
                    own = self.regions[number]
                    made = kernels[number]([_tensor(value(given)) for given in own.inputs])
                    known.update(zip(own.outputs, made, strict=True))
            return known[node]

        results = nodes[-1].args[0]
        found = results if isinstance(results, list | tuple) else (results,)
        return tuple(_tensor(value(node)) for node in found if isinstance(node, fx.Node))

    @property
    def left(self) -> tuple[str, ...]:
        """Operators that are in no region."""
        inside = {node for own in self.regions for node in own.nodes}
        return tuple(
            str(node.target)
            for node in self.module.graph.nodes
            if node.op == "call_function"
            and node not in inside
            and node.target is not operator.getitem
        )


def _tensor(value: object) -> Tensor:
    assert isinstance(value, Tensor)
    return value


def traced(graph: Graph, inputs: Sequence[Tensor]) -> Traced:
    """A graph in ATen operators, decomposed as Inductor does it.

    Args:
        graph: one of the suite.
        inputs: real tensors, or fake ones.
    """
    table: Mapping[torch._ops.OpOverload, Callable[..., object]] = select_decomp_table()
    pure = torch.func.functionalize(graph.compute)
    module = make_fx(pure, decomposition_table=dict(table), tracing_mode="fake")(*inputs)
    return Traced(module=module, regions=tuple(candidates(module)))
