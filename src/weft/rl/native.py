"""Both passes over gradients and their references as one compiled kernel each, on CPUs.

Torch's operators read a gradient again for each product that is taken of it. Here the first pass
reads gradient and reference once and takes all three products; the second reads both once more and
writes both. Sums are made in float32 over a thousand elements and in float64 from there on, and in
an order that does not depend on threads.

Knows where tensors are, and of which types. Does not know what is decided, or when kernels are
worth compiling. What it cannot take is left to operators: other devices, other types than float32,
bfloat16 and float16, and tensors that are not contiguous.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import product

import torch
from torch import Tensor

from weft.fusion.cache import explained, folder
from weft.fusion.compile import build, load
from weft.fusion.emit.cpp import Source
from weft.rl.shards import Shard

__all__ = ["Table", "kernels", "tabulate"]

TYPES = {
    pair: number
    for number, pair in enumerate(product((torch.float32, torch.bfloat16, torch.float16), repeat=2))
}
"""What kernels call the types of a gradient and its reference."""

Kernel = Callable[[bytes, int, int], int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """Gradients and references that kernels take. It holds addresses, so it serves for one step.

    Attributes:
        numbers: how many rows there are, and six numbers a row.
        elements: of all gradients in it.
        rest: gradients that are left to operators.
    """

    numbers: bytes
    elements: int
    rest: list[Shard]

    def add_products(self, sums: Tensor) -> None:
        """Take the inner products of gradients and references.

        Args:
            sums: to which products of gradients with themselves, with references, and of
                references with themselves are added [groups, 3], float64, on the CPU.
        """
        products, _ = kernels()
        products(self.numbers, sums.data_ptr(), torch.get_num_threads())

    def advance(self, decisions: Tensor) -> None:
        """Change gradients and references in place.

        Args:
            decisions: what of the reference is taken out, what the gradient is multiplied by
                first, the weight of the gradient as it came in the new reference, and whether that
                is zero instead [groups, 4], float64, on the CPU.
        """
        _, advance = kernels()
        advance(self.numbers, decisions.contiguous().data_ptr(), torch.get_num_threads())


@cache
def kernels() -> tuple[Kernel, Kernel]:
    """The kernels of the first and of the second pass; compiled once on a machine.

    Raises:
        RunError: there is no compiler, it refuses the code, or there is no folder for kernels.
    """
    text = (files("weft.rl") / "passes.h").read_text()
    source = Source(text=text, name="weft_rl", shared_bytes=0, thread_bytes=0)
    try:
        path = build([source], folder())
        return load(path, "weft_rl_products"), load(path, "weft_rl_advance")
    except OSError as error:
        raise explained(error) from error


def tabulate(shards: Sequence[Shard], references: Callable[[Shard], Sequence[Tensor]]) -> Table:
    """Sort gradients into those that kernels take and the rest.

    Args:
        shards: gradients, each with one reference.
        references: of one of them.
    """
    rows, rest, elements = array("q", (0,)), list[Shard](), 0
    for shard in shards:
        gradient, (reference,) = shard.gradient, references(shard)
        types = TYPES.get((gradient.dtype, reference.dtype))
        if types is None or not (_is_here(gradient) and _is_here(reference)):
            rest.append(shard)
            continue
        count, where = gradient.numel(), (gradient.data_ptr(), reference.data_ptr())
        rows.extend((*where, count, types, shard.group, shard.copies))
        elements += count
    rows[0] = len(shards) - len(rest)
    return Table(numbers=rows.tobytes(), elements=elements, rest=rest)


def _is_here(tensor: Tensor) -> bool:
    return tensor.is_cpu and tensor.is_contiguous()
