"""A region: the memory-intensive part of a graph that is compiled as one.

Its operators are those of `weft.program`; what it reads and writes are tensors with strides.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property

from weft.core.digest import digest
from weft.core.errors import VerifyError
from weft.program.graph import Program, Value
from weft.program.operators import Kind, operator

__all__ = ["STITCHED", "Region", "Strides"]

Strides = tuple[int, ...]
"""Of each dim, elements from one index to the next."""

STITCHED = frozenset({"full", "iota", "sum", "amax", "slice_backward", "gather.default"})
"""Operators that stitching knows beside those of element-wise and view kind."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """Operators, what they read and what of them is read by others.

    Attributes:
        program: the operators; its loss is the first output and means nothing more.
        outputs: what others read; each is one output of its node.
        input_strides: of each input of the program, in order, in elements.
        output_strides: of each output.
    """

    program: Program
    outputs: tuple[Value, ...]
    input_strides: tuple[Strides, ...]
    output_strides: tuple[Strides, ...]

    def __post_init__(self) -> None:
        for node in self.program.nodes:
            kind = operator(node.op).kind
            known = node.op in STITCHED or kind in _KINDS
            if not known or len(node.outputs) != 1:
                raise VerifyError(
                    need="operators that can be stitched",
                    got=node.op,
                    hint="leave it outside of the region",
                )

    @cached_property
    def digest(self) -> str:
        """Equal for regions that compute the same on tensors that lie alike."""
        parts = (self.program.digest, self.outputs, self.input_strides, self.output_strides)
        return digest(repr(parts))

    def without(self, outputs: Collection[int]) -> Region:
        """The same region, of which fewer outputs are read.

        Args:
            outputs: numbers of those that are not; some are left.
        """
        kept = [number for number in range(len(self.outputs)) if number not in outputs]
        return replace(
            self,
            outputs=tuple(self.outputs[number] for number in kept),
            output_strides=tuple(self.output_strides[number] for number in kept),
        )

    @property
    def num_tensors(self) -> int:
        """Inputs and outputs."""
        return len(self.program.inputs) + len(self.outputs)

    @property
    def num_bytes(self) -> int:
        """Bytes of all inputs and outputs, each once [bytes]."""
        program = self.program
        read = sum(program.nodes[i.node].outputs[0].num_bytes for i in program.inputs)
        return read + sum(program.type_of(value).num_bytes for value in self.outputs)


_KINDS = frozenset({Kind.INPUT, Kind.CREATE, Kind.POINTWISE, Kind.VIEW, Kind.MOVE})
