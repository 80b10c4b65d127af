"""Which tensors never reach memory, where a compiler fuses neighbouring operators.

Element-wise operators, reductions and normalisations that follow one another in one phase
become one kernel: what one hands to the next stays in registers, and a tensor that several of
them read is read once. Matrix products, attention, convolutions, lookups and collectives are
kernels of their own, and so is whatever crosses from forward to backward.

A fused kernel cannot wait for another one. Each step gets a depth, the largest number of kernel
boundaries on a way to it; only steps of equal depth share a kernel. This is the discount that a
cost model needs, not a fusion plan: it takes no account of registers or of differing loops.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from weft.program.graph import Program
from weft.program.operators import OPERATORS, Kind

__all__ = ["Paid", "Step", "fused_traffic", "program_traffic"]


@dataclass(frozen=True, slots=True)
class Step:
    """What fusion has to know of an operator or a collective.

    Attributes:
        op: operator name; any other name stands for something that does not fuse.
        phase: steps of different phases are compiled apart.
        reads: (earlier step, output) of each operand; step -1 for what was there before.
        num_outputs: how many it makes.
    """

    op: str
    phase: str
    reads: tuple[tuple[int, int], ...]
    num_outputs: int = 1


@dataclass(frozen=True, slots=True)
class Paid:
    """Which operands a step reads from memory and which outputs it writes there."""

    reads: tuple[bool, ...]
    writes: tuple[bool, ...]


def fused_traffic(
    steps: Sequence[Step], kept: Collection[tuple[int, int]] = ()
) -> tuple[Paid, ...]:
    """What each step pays for on a device that fuses.

    Args:
        steps: in execution order.
        kept: (step, output) of what has to be in memory at the end.

    Returns:
        One `Paid` for each step. Views pay nothing and pass on what they view.

    Example:
        >>> steps = [Step("exp.default", "forward", ((-1, 0),)),
        ...          Step("neg.default", "forward", ((0, 0),))]
        >>> [p.writes for p in fused_traffic(steps, kept={(1, 0)})]
        [(False,), (True,)]
    """
    fuses = [_fuses(step) for step in steps]
    views = [_is_view(step) for step in steps]
    roots = _roots(steps, views)
    depths = _depths(steps, fuses, roots)
    written = {roots.get(value, value) for value in kept}
    reads: list[tuple[bool, ...]] = []
    loaded: set[tuple[tuple[int, int], int, str]] = set()
    for i, step in enumerate(steps):
        pays: list[bool] = []
        for operand in step.reads:
            value = roots.get(operand, operand)
            maker = value[0]
            if views[i] or (
                maker >= 0
                and fuses[maker]
                and fuses[i]
                and depths[maker] == depths[i]
                and steps[maker].phase == step.phase
            ):
                pays.append(False)  # the same kernel
                continue
            written.add(value)
            # Steps of one depth and phase that read the same tensor are one kernel: one load.
            key = (value, depths[i], step.phase)
            pays.append(key not in loaded or not fuses[i])
            if fuses[i] and maker >= 0:
                loaded.add(key)
        reads.append(tuple(pays))
    return tuple(
        Paid(
            reads[i],
            tuple(
                not views[i] and (not fuses[i] or (i, output) in written)
                for output in range(step.num_outputs)
            ),
        )
        for i, step in enumerate(steps)
    )


def program_traffic(program: Program) -> tuple[Paid, ...]:
    """What each node of a program pays for on a device that fuses."""
    steps = [
        Step(
            op=node.op,
            phase=node.phase.value,
            reads=tuple((v.node, v.output) for v in program.operands(n)),
            num_outputs=len(node.outputs),
        )
        for n, node in enumerate(program.nodes)
    ]
    results = (program.loss, *(value for _, value in program.updates))
    return fused_traffic(steps, {(value.node, value.output) for value in results})


_FUSED_KINDS = frozenset({Kind.CREATE, Kind.POINTWISE, Kind.REDUCE, Kind.NORMALIZE})


def _kind(step: Step) -> Kind | None:
    row = OPERATORS.get(step.op)
    return None if row is None else row.kind


def _is_view(step: Step) -> bool:
    # A slice is read through like a view: see `weft.program.work`.
    return _kind(step) is Kind.VIEW or step.op == "slice"


def _fuses(step: Step) -> bool:
    return _kind(step) in _FUSED_KINDS


def _roots(steps: Sequence[Step], views: Sequence[bool]) -> dict[tuple[int, int], tuple[int, int]]:
    """For each view, the value that it shows."""
    roots: dict[tuple[int, int], tuple[int, int]] = {}
    for i, step in enumerate(steps):
        if views[i]:
            roots[i, 0] = roots.get(step.reads[0], step.reads[0])
    return roots


def _depths(
    steps: Sequence[Step],
    fuses: Sequence[bool],
    roots: dict[tuple[int, int], tuple[int, int]],
) -> list[int]:
    depths: list[int] = []
    for step, joins in zip(steps, fuses, strict=True):
        depth = 0
        for operand in step.reads:
            producer = roots.get(operand, operand)[0]
            if producer >= 0:
                boundary = not (joins and fuses[producer])
                depth = max(depth, depths[producer] + boundary)
        depths.append(depth)
    return depths
