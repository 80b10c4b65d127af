# pyright: standard
"""A graph attention network over groups of operators and of devices, which rates choices.

    h      <- tanh(linear(features))                                     for both kinds of nodes
    layer:    alpha = softmax over sources of leaky_relu(a_s h_s + a_t h_t + a_e e), by heads
              h_t  <- norm(h_t + tanh(mean over kinds of edges of sum alpha (W h_s + V e)))
    choice:   logit = dense([operator whose turn it is, method,
                             mean over devices of dense(dense([device, takes part, is open]))])

Kinds of edges: tensors forward and backward among operators, links among devices, and places
between the two both ways. Means over devices let it read machines with any number of them.

It is built on PyTorch Geometric: convolutions over several kinds of nodes and edges that others
maintain, and batches of graphs that are unlike without padding.

Source: TAG (arXiv 2302.06126); layer norm in place of batch norm, and narrower.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from weft.parallel.mcts.features import (
    CHOICE_WIDTH,
    DEVICE_WIDTH,
    OPERATOR_WIDTH,
    PLACE_WIDTH,
    Observation,
)
from weft.parallel.mcts.geometric import HeteroConv, HeteroData, MessagePassing, scatter, softmax

__all__ = ["PriorNetwork", "graph_of"]

_Kind = tuple[str, str, str]
# Edges lead from those who tell to those who are told.
_PREVIOUS = ("operator", "previous", "operator")
_NEXT = ("operator", "next", "operator")
_SERVE = ("device", "serve", "operator")
_PLACE = ("operator", "place", "device")
_LINK = ("device", "link", "device")
_OFFER = ("device", "offer", "choice")
_TURN = ("operator", "turn", "choice")
_WIDTHS: dict[_Kind, int] = {
    _PREVIOUS: 1,
    _NEXT: 1,
    _SERVE: PLACE_WIDTH,
    _PLACE: PLACE_WIDTH,
    _LINK: 1,
}
"""Numbers on each edge that layers look along."""


def graph_of(seen: Observation) -> HeteroData:
    """An observation as a graph, whose nodes are operators, devices and choices."""
    maker, reader = np.nonzero(seen.tensors)
    forward = torch.from_numpy(np.stack([maker, reader]))
    moved = _floats(seen.tensors[maker, reader]).reshape(-1, 1)
    operators, devices, choices = len(seen.operators), len(seen.devices), len(seen.methods)
    pairs, places = _pairs(operators, devices), _floats(seen.places).reshape(-1, PLACE_WIDTH)
    links, parts = _floats(seen.links).reshape(-1, 1), _floats(seen.parts).reshape(-1, 2)
    turn = torch.stack([torch.full((choices,), seen.turn), torch.arange(choices)])
    stores: dict[Any, Any] = {
        "operator": {"x": _floats(seen.operators)},
        "device": {"x": _floats(seen.devices)},
        "choice": {"x": _floats(seen.methods)},
        _PREVIOUS: {"edge_index": forward, "edge_attr": moved},
        _NEXT: {"edge_index": forward.flip(0), "edge_attr": moved},
        _SERVE: {"edge_index": pairs.flip(0), "edge_attr": places},
        _PLACE: {"edge_index": pairs, "edge_attr": places},
        _LINK: {"edge_index": _pairs(devices, devices).flip(0), "edge_attr": links},
        _OFFER: {"edge_index": _pairs(choices, devices).flip(0), "edge_attr": parts},
        _TURN: {"edge_index": turn},
    }
    return HeteroData(stores)


def _floats(array: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))


def _pairs(first: int, second: int) -> Tensor:
    """All pairs, [2, first * second]."""
    return torch.from_numpy(np.indices((first, second)).reshape(2, -1))


class _Attention(MessagePassing):
    """Targets look at sources over one kind of edges."""

    def __init__(self, width: int, heads: int, edge: int) -> None:
        super().__init__(aggr="sum", node_dim=0)
        self.heads = heads
        self.source = nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(edge, width)
        self.rate_source = nn.Linear(width, heads, bias=False)
        self.rate_target = nn.Linear(width, heads, bias=False)
        self.rate_edge = nn.Linear(edge, heads)

    def forward(
        self, x: Tensor | tuple[Tensor, Tensor], edge_index: Tensor, edge_attr: Tensor
    ) -> Tensor:
        """What targets [t,w] learn from sources [s,w] over edges [2,n] with numbers [n,e]."""
        source, target = (x, x) if isinstance(x, Tensor) else x
        told = self.propagate(
            edge_index,
            size=(len(source), len(target)),
            value=(self.source(source), None),
            rate=(self.rate_source(source), self.rate_target(target)),
            edge_attr=edge_attr,
        )
        return told.flatten(1) + self.edge.bias

    def propagate(self, *args: Any, **kwargs: Any) -> Tensor:
        """What the base does.

        For a class without its own, the base writes code that it generates to files that stay in
        the temporary directory.
        """
        return super().propagate(*args, **kwargs)

    def message(  # pyright: ignore[reportIncompatibleMethodOverride] - each class asks for its own
        self,
        value_j: Tensor,
        rate_i: Tensor,
        rate_j: Tensor,
        edge_attr: Tensor,
        index: Tensor,
        size_i: int,
    ) -> Tensor:
        """What passes over each edge [n,heads,w/heads]; _i is of its target, _j of its source."""
        rate = F.leaky_relu(rate_i + rate_j + self.rate_edge(edge_attr), 0.2)
        share = softmax(rate, index, num_nodes=size_i)
        value = value_j + F.linear(edge_attr, self.edge.weight)
        return share[..., None] * value.unflatten(1, (self.heads, -1))


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.told = HeteroConv(
            {kind: _Attention(width, heads, edge) for kind, edge in _WIDTHS.items()}, aggr="mean"
        )
        self.norm = nn.ModuleDict({node: nn.LayerNorm(width) for node in ("operator", "device")})

    def forward(
        self, nodes: dict[str, Tensor], edges: dict[_Kind, Tensor], numbers: dict[_Kind, Tensor]
    ) -> dict[str, Tensor]:
        told = self.told(nodes, edges, edge_attr_dict=numbers)
        return {node: self.norm[node](h + torch.tanh(told[node])) for node, h in nodes.items()}


class PriorNetwork(nn.Module):
    """Logits of choices."""

    def __init__(self, width: int = 64, heads: int = 4, layers: int = 4) -> None:
        super().__init__()
        self.sizes = {"width": width, "heads": heads, "layers": layers}
        self.operators = nn.Linear(OPERATOR_WIDTH, width)
        self.devices = nn.Linear(DEVICE_WIDTH, width)
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(layers))
        self.device = nn.Sequential(nn.Linear(width + 2, width), nn.ReLU(), nn.Linear(width, width))
        self.choice = nn.Sequential(
            nn.Linear(2 * width + CHOICE_WIDTH, width), nn.ReLU(), nn.Linear(width, 1)
        )

    def forward(self, graph: HeteroData) -> Tensor:
        """Logits [choice]; of a batch those of one graph after the other."""
        nodes = {
            "operator": torch.tanh(self.operators(graph["operator"].x)),
            "device": torch.tanh(self.devices(graph["device"].x)),
        }
        edges, numbers = graph.edge_index_dict, graph.edge_attr_dict
        for layer in self.layers:
            nodes = layer(nodes, edges, numbers)
        methods = graph["choice"].x
        device, choice = edges[_OFFER]
        rated = self.device(torch.cat([nodes["device"][device], numbers[_OFFER]], dim=1))
        mean = scatter(rated, choice, dim_size=len(methods), reduce="mean")
        turn = nodes["operator"][edges[_TURN][0]]
        return self.choice(torch.cat([turn, methods, mean], dim=1)).squeeze(1)
