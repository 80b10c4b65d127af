# pyright: standard
"""A graph attention network over groups of operators and of devices, which rates choices.

    h      <- tanh(linear(features))                                     for both kinds of nodes
    layer:    alpha = softmax over sources of leaky_relu(a_s h_s + a_t h_t + a_e e), by heads
              h_t  <- norm(h_t + tanh(mean over kinds of edges of sum alpha (W h_s + V e)))
    choice:   logit = dense([operator whose turn it is, method,
                             mean over devices of dense(dense([device, takes part, is open]))])

Kinds of edges: tensors forward and backward among operators, links among devices, and places
between the two both ways. Means over devices let it read machines with any number of them.

Graphs have some forty nodes, so all pairs are computed and those that are no edge are masked, many
graphs at once; a library for large sparse graphs takes ten times as long for that.

Source: TAG (arXiv 2302.06126); layer norm in place of batch norm, and narrower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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

__all__ = ["Batch", "PriorNetwork", "batched"]

_NEVER = -1e9


class Batch(NamedTuple):
    """Observations side by side, padded; masks say what is there."""

    operators: Tensor
    devices: Tensor
    tensors: Tensor
    links: Tensor
    places: Tensor
    turn: Tensor
    methods: Tensor
    parts: Tensor
    is_operator: Tensor
    is_device: Tensor
    is_choice: Tensor


def batched(observations: Sequence[Observation]) -> Batch:
    """Observations of any sizes as one batch."""
    seen = observations

    def padded(arrays: Sequence[NDArray[np.float64]]) -> Tensor:
        shape = tuple(max(sizes) for sizes in zip(*(a.shape for a in arrays), strict=True))
        found = np.zeros((len(arrays), *shape), np.float32)
        for at, array in enumerate(arrays):
            found[(at, *(slice(size) for size in array.shape))] = array
        return torch.from_numpy(found)

    return Batch(
        operators=padded([o.operators for o in seen]),
        devices=padded([o.devices for o in seen]),
        tensors=padded([o.tensors for o in seen]),
        links=padded([o.links for o in seen]),
        places=padded([o.places for o in seen]),
        turn=torch.tensor([o.turn for o in seen]),
        methods=padded([o.methods for o in seen]),
        parts=padded([o.parts for o in seen]),
        is_operator=padded([np.ones(len(o.operators)) for o in seen]) > 0,
        is_device=padded([np.ones(len(o.devices)) for o in seen]) > 0,
        is_choice=padded([np.ones(len(o.methods)) for o in seen]) > 0,
    )


class _Attention(nn.Module):
    """Targets look at sources over one kind of edges."""

    def __init__(self, width: int, heads: int, edge: int) -> None:
        super().__init__()
        self.heads = heads
        self.source = nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(edge, width)
        self.rate_source = nn.Linear(width, heads, bias=False)
        self.rate_target = nn.Linear(width, heads, bias=False)
        self.rate_edge = nn.Linear(edge, heads)

    def forward(self, source: Tensor, target: Tensor, edge: Tensor, there: Tensor) -> Tensor:
        """What targets [b,t,w] learn from sources [b,s,w] over edges [b,t,s,e]; mask [b,t,s]."""
        rate = self.rate_target(target)[:, :, None] + self.rate_source(source)[:, None]
        rate = F.leaky_relu(rate + self.rate_edge(edge), 0.2)
        share = rate.masked_fill(~there[..., None], _NEVER).softmax(2) * there[..., None]
        batch, _, sources, _ = share.shape
        values = self.source(source).view(batch, sources, self.heads, -1)
        from_nodes = torch.einsum("btsh,bshd->bthd", share, values).flatten(2)
        # A head's part of the edges: sums of edges first, then the linear map, a head at a time.
        sums = torch.einsum("btsh,btse->bthe", share, edge)
        weights = self.edge.weight.view(self.heads, -1, edge.shape[-1])
        from_edges = torch.einsum("bthe,hde->bthd", sums, weights).flatten(2)
        return from_nodes + from_edges + self.edge.bias


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.previous = _Attention(width, heads, 1)
        self.next = _Attention(width, heads, 1)
        self.link = _Attention(width, heads, 1)
        self.place = _Attention(width, heads, PLACE_WIDTH)
        self.serve = _Attention(width, heads, PLACE_WIDTH)
        self.operator_norm = nn.LayerNorm(width)
        self.device_norm = nn.LayerNorm(width)

    def forward(self, operators: Tensor, devices: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        back = batch.tensors.transpose(1, 2)
        places = batch.places
        pairs = batch.is_operator[:, :, None] & batch.is_device[:, None]
        joined = batch.is_device[:, :, None] & batch.is_device[:, None]
        for_operators = (
            self.previous(operators, operators, back[..., None], back > 0)
            + self.next(operators, operators, batch.tensors[..., None], batch.tensors > 0)
            + self.serve(devices, operators, places, pairs)
        )
        for_devices = self.link(devices, devices, batch.links[..., None], joined) + self.place(
            operators, devices, places.transpose(1, 2), pairs.transpose(1, 2)
        )
        return (
            self.operator_norm(operators + torch.tanh(for_operators / 3)),
            self.device_norm(devices + torch.tanh(for_devices / 2)),
        )


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

    def forward(self, batch: Batch) -> Tensor:
        """Logits [batch, choice]; of choices that are not there very low ones."""
        operators = torch.tanh(self.operators(batch.operators))
        devices = torch.tanh(self.devices(batch.devices))
        for layer in self.layers:
            operators, devices = layer(operators, devices, batch)
        count, choices, groups, _ = batch.parts.shape
        of_devices = devices[:, None].expand(count, choices, groups, -1)
        rated = self.device(torch.cat([of_devices, batch.parts], dim=3))
        there = batch.is_device[:, None, :, None].float()
        mean = (rated * there).sum(2) / there.sum(2)
        turn = operators[torch.arange(count), batch.turn]
        of_turn = turn[:, None].expand(count, choices, -1)
        logits = self.choice(torch.cat([of_turn, batch.methods, mean], dim=2)).squeeze(2)
        return logits.masked_fill(~batch.is_choice, _NEVER)
