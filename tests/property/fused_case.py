"""A region with tensors to run it on, and parts of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from weft.capture.dtypes import to_torch_dtype
from weft.fusion.region import Region
from weft.program.builder import Builder
from weft.program.graph import Role, Value, map_values, values_in
from weft.program.random import row_major_strides
from weft.program.text import to_text
from weft.program.types import DType


@dataclass(frozen=True, kw_only=True)
class Given:
    """Where an input lies: in which memory, and where it begins there."""

    memory: int
    offset: int
    below: int = 0


@dataclass(frozen=True, kw_only=True)
class Case:
    """A region, where its inputs lie, and what fills them."""

    region: Region
    given: tuple[Given, ...]
    seed: int
    wild: bool

    def tensors(self) -> list[torch.Tensor]:
        """The inputs; of one memory if they share it."""
        rng = np.random.default_rng(self.seed)
        memory: dict[int, torch.Tensor] = {}
        reach: dict[int, int] = {}
        types = [self.region.program.type_of(Value(i.node)) for i in self.region.program.inputs]
        rows = list(zip(self.given, types, self.region.input_strides, strict=True))
        for own, of, strides in rows:
            last = sum((n - 1) * s for n, s in zip(of.shape, strides, strict=True))
            reach[own.memory] = max(reach.get(own.memory, 0), own.offset + last + 1)
        found: list[torch.Tensor] = []
        for own, of, strides in rows:
            if own.memory not in memory:
                memory[own.memory] = self._filled(rng, of.dtype, reach[own.memory], own.below)
            found.append(torch.as_strided(memory[own.memory], of.shape, strides, own.offset))
        return found

    def _filled(self, rng, dtype, size, below):
        if dtype is DType.BOOL:
            return torch.from_numpy(rng.random(size) < 0.5)
        if not dtype.is_float:
            low, high = (0, below) if below else (0, 9) if dtype is DType.U8 else (-4, 5)
            return torch.from_numpy(rng.integers(low, high, size)).to(to_torch_dtype(dtype))
        numbers = rng.normal(size=size)
        numbers[rng.random(size) < 0.05] = 0.0
        if self.wild:
            strange = np.array([np.nan, np.inf, -np.inf, -0.0, 1e30, -90.0, 300.0, 1e-40])
            at = rng.random(size) < 0.1
            numbers[at] = rng.choice(strange, at.sum())
        return torch.from_numpy(numbers).to(to_torch_dtype(dtype))

    def __str__(self) -> str:
        region = self.region
        return "\n".join(
            (
                to_text(region.program),
                f"outputs {', '.join(map(str, region.outputs))}",
                f"input_strides {region.input_strides}",
                f"output_strides {region.output_strides}",
                f"given {self.given}, seed {self.seed}, wild {self.wild}",
            )
        )


def rebuilt(program, outputs, strides, given, output_strides, loose=frozenset()):
    """A region of the nodes that its outputs need, with some of them as inputs instead.

    Args:
        program, outputs, strides, output_strides: as in a region.
        given: where inputs lie.
        loose: nodes that become inputs.
    """
    needed, stack = set(), [v.node for v in outputs]
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            if node not in loose:
                stack.extend(v.node for v in values_in(program.nodes[node].args))
    laid = {i.node: (s, g) for i, s, g in zip(program.inputs, strides, given, strict=True)}
    builder, new = Builder("region"), {}
    kept_strides, kept_given = [], []
    for number in sorted(needed):
        node = program.nodes[number]
        if node.op == "input" or number in loose:
            of = node.outputs[0]
            own = laid.get(number) or (
                row_major_strides(of.shape),
                Given(memory=1000 + number, offset=0),
            )
            kept_strides.append(own[0])
            kept_given.append(own[1])
            new[number] = builder.input(f"in{len(kept_given) - 1}", Role.BATCH, of)
        else:
            args = map_values(node.args, lambda v: new[v.node])
            (new[number],) = builder.copy(node, args)
    made = tuple(new[v.node] for v in outputs)
    region = Region(
        program=builder.build(made[0]),
        outputs=made,
        input_strides=tuple(kept_strides),
        output_strides=tuple(output_strides),
    )
    return region, tuple(kept_given)
