"""Random training steps and machines, which the policy that plans is trained on.

Stacks of linear layers, of attention and of convolutions, of random depths, widths and batches; on
one to four nodes of two to eight devices, with links, networks and memory of random sizes. None is
a model that anybody uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.automap.models import server
from weft.capture import SGD, AdamW, Workload, capture
from weft.machine import Machine, preset
from weft.machine.topology import with_nodes
from weft.program.graph import Program

__all__ = ["random_machine", "random_step"]


def random_step(generator: np.random.Generator) -> Program:
    """A captured training step of a random model."""
    kind = int(generator.integers(3))
    make = (_linear, _attention, _convolutions)[kind]
    return capture(make(generator))


def random_machine(generator: np.random.Generator) -> Machine:
    """One to four nodes with devices of a preset or of the paper's servers."""
    base = (preset("dgx-h100x1"), preset("dgx-a100x1"), server())[int(generator.integers(3))]
    (group,) = base.groups
    memory = group.device.memory_bytes
    small = replace(memory, value=memory.value * 10 ** generator.uniform(-2.5, 0))
    link, network = group.link, base.network
    speed = 10 ** generator.uniform(-1, 0.3)
    own = replace(
        group,
        devices_per_node=int(generator.choice([2, 4, 8])),
        device=replace(group.device, memory_bytes=small),
        link=replace(
            link, bytes_per_s=replace(link.bytes_per_s, value=link.bytes_per_s.value * speed)
        ),
    )
    slow = network.bytes_per_s.value * 10 ** generator.uniform(-1, 0.3)
    machine = replace(
        base,
        groups=(own,),
        network=replace(network, bytes_per_s=replace(network.bytes_per_s, value=slow)),
    )
    return with_nodes(machine, int(generator.choice([1, 2, 4])))


def _width(generator: np.random.Generator, low: int, high: int) -> int:
    """A multiple of 64, even in its logarithm."""
    return 64 * round(np.exp(generator.uniform(np.log(low), np.log(high))) / 64)


def _batch(generator: np.random.Generator) -> int:
    return int(generator.choice([4, 8, 16, 32, 64, 96, 128, 256, 512]))


def _optimizer(generator: np.random.Generator) -> AdamW | SGD:
    return AdamW(lr=1e-3) if generator.random() < 0.5 else SGD(lr=0.1, momentum=0.9)


class Linear(nn.Module):
    """Linear layers with activations between."""

    def __init__(self, widths: list[int], *, bias: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=bias) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        for layer in self.layers:
            x = F.gelu(layer(x))
        return x


class Block(nn.Module):
    """Attention and MLP on a residual stream."""

    def __init__(self, width: int, heads: int, hidden: int, *, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (
            nn.Linear(width, width, bias=bias) for _ in range(4)
        )
        self.up, self.down = (
            nn.Linear(width, hidden, bias=bias),
            nn.Linear(hidden, width, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The stream behind the layer."""
        read = self.norm1(x)
        q, k, v = (
            part(read).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.out(mixed)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Attention(nn.Module):
    """Tokens, blocks, a head."""

    def __init__(
        self, tokens: int, width: int, heads: int, hidden: int, layers: int, *, bias: bool
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(tokens, width)
        self.layers = nn.ModuleList(Block(width, heads, hidden, bias=bias) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, tokens, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        x = self.tokens(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class Convolutions(nn.Module):
    """Convolutions, each of which halves the image, and linear layers."""

    def __init__(self, channels: list[int], image: int, hidden: list[int]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise([3, *channels])
        )
        features = channels[-1] * (image >> len(channels)) ** 2
        self.linear = Linear([features, *hidden], bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        for stage in self.stages:
            x = F.max_pool2d(F.relu(stage(x)), 2)
        return self.linear(x.flatten(1))


def _class_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch["x"]), batch["labels"])


def _token_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch["x"]).flatten(0, 1), batch["labels"].flatten())


def _linear(generator: np.random.Generator) -> Workload:
    rows, depth = _batch(generator), int(generator.integers(2, 6))
    widths = [_width(generator, 64, 16_384) for _ in range(depth)]
    bias = bool(generator.random() < 0.5)
    return Workload(
        name="linear",
        model=lambda: Linear(widths, bias=bias),
        loss=_class_loss,
        batch=lambda _: {
            "x": torch.zeros(rows, widths[0]),
            "labels": torch.zeros(rows, dtype=torch.long),
        },
        optimizer=_optimizer(generator),
    )


def _attention(generator: np.random.Generator) -> Workload:
    rows, length = _batch(generator), int(generator.choice([64, 128, 512]))
    heads = int(generator.choice([8, 16, 32]))
    width = heads * int(generator.choice([32, 64, 128]))
    hidden, layers = _width(generator, width, 8 * width), int(generator.integers(1, 4))
    tokens, bias = _width(generator, 512, 32_768), bool(generator.random() < 0.5)
    return Workload(
        name="attention",
        model=lambda: Attention(tokens, width, heads, hidden, layers, bias=bias),
        loss=_token_loss,
        batch=lambda _: {
            "x": torch.zeros(rows, length, dtype=torch.long),
            "labels": torch.zeros(rows, length, dtype=torch.long),
        },
        optimizer=_optimizer(generator),
    )


def _convolutions(generator: np.random.Generator) -> Workload:
    rows, image = _batch(generator), int(generator.choice([32, 64, 128]))
    channels = [_width(generator, 64, 1024) for _ in range(int(generator.integers(2, 5)))]
    hidden = [_width(generator, 64, 8192) for _ in range(int(generator.integers(1, 4)))]
    return Workload(
        name="convolutions",
        model=lambda: Convolutions(channels, image, hidden),
        loss=_class_loss,
        batch=lambda _: {
            "x": torch.zeros(rows, 3, image, image),
            "labels": torch.zeros(rows, dtype=torch.long),
        },
        optimizer=_optimizer(generator),
    )
