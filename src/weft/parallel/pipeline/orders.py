"""In which order a pipeline may go through unlike devices.

Blocks of neighbouring ranks are fixed, and so is how many devices each has; which of them is first
is not. The first stages keep most activations, so they want memory; neighbours send to each other
with every micro-batch, so they want fast links.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise, permutations
from math import inf

from weft.machine.model import Device, Machine
from weft.machine.topology import link_between, nodes_of, reference_s
from weft.parallel.pipeline.estimate import PipelineCosts
from weft.parallel.pipeline.plan import PipelinePlan, StagedProgram
from weft.parallel.pipeline.standing import in_rank_order, ranks_of_groups
from weft.parallel.plan import Alternative
from weft.program.graph import Program

__all__ = ["best_order", "orders", "which_lost"]

MOST_BLOCKS = 4
"""Blocks of which all orders are looked at. Chosen: those are 24, and of five 120."""


def orders(machine: Machine, sizes: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Standings of groups on blocks of ranks that are worth a try; first that in order of ranks.

    Of few blocks these are all, but one of each lot that put blocks of one kind in the places of
    each other. Of many they are the blocks turned round, by memory, by speed either way, and from
    the one with most memory always on to the one that the fastest link leads to.

    Args:
        machine: where the blocks lie.
        sizes: devices of each block, in the order of ranks.

    Returns:
        In each, for the first group, the second and so on, the number of its block.

    Example:
        >>> from weft.machine.presets import preset
        >>> orders(preset("mixed-v100-p100-1080ti"), (4, 12))
        ((0, 1), (1, 0))
        >>> orders(preset("dgx-h100x2"), (8, 8))
        ((0, 1),)
    """
    blocks = ranks_of_groups(sizes, in_rank_order(len(sizes)))
    some = permutations(range(len(blocks))) if len(blocks) <= MOST_BLOCKS else _few(machine, blocks)
    kinds = _kinds(machine, blocks)
    found: dict[tuple[int, ...], tuple[int, ...]] = {}
    for order in some:
        found.setdefault(tuple(kinds[block] for block in order), tuple(order))
    return tuple(found.values())


def _few(machine: Machine, blocks: Sequence[range]) -> Iterator[Sequence[int]]:
    """A few orders of many blocks."""
    devices = [_devices(machine, block) for block in blocks]
    numbers = range(len(blocks))

    def least(figure: Callable[[Device], float]) -> Callable[[int], float]:
        return lambda block: min(map(figure, devices[block]))

    memory, speed = least(lambda d: d.memory_bytes.value), least(_speed)
    yield numbers
    yield tuple(reversed(numbers))
    yield sorted(numbers, key=memory, reverse=True)
    yield sorted(numbers, key=speed, reverse=True)
    yield sorted(numbers, key=speed)
    yield _over_fast_links(machine, blocks, max(numbers, key=memory))


def _devices(machine: Machine, block: range) -> tuple[Device, ...]:
    """Kinds of devices of a block."""
    return tuple(machine.groups[number].device for number, _, _ in nodes_of(machine, block))


def _speed(device: Device) -> float:
    return max(rate.value for rate in device.matmul_flops_per_s.values())


def _over_fast_links(machine: Machine, blocks: Sequence[range], first: int) -> list[int]:
    """From a block always on to the one that the fastest link leads to."""
    order, left = [first], [block for block in range(len(blocks)) if block != first]
    while left:
        here = blocks[order[-1]].start
        seconds = {
            block: reference_s(link_between(machine, here, blocks[block].start)) for block in left
        }
        nearest = min(left, key=seconds.__getitem__)
        order.append(nearest)
        left.remove(nearest)
    return order


def _kinds(machine: Machine, blocks: Sequence[range]) -> list[int]:
    """Of each block the first that is like it, which can take its place.

    Blocks that share a node are joined by its link, so none can take the place of another.
    """
    if any(_share_a_node(machine, *pair) for pair in pairwise(blocks)):
        return list(range(len(blocks)))
    lies = [
        [(machine.groups[number], held, count) for number, held, count in nodes_of(machine, block)]
        for block in blocks
    ]
    alike = [
        [(replace(group, num_nodes=1), held, count) for group, held, count in block]
        for block in lies
    ]
    return [alike.index(block) for block in alike]


def _share_a_node(machine: Machine, first: range, second: range) -> bool:
    """Whether a node holds ranks of two blocks that follow each other."""
    apart = [*nodes_of(machine, first), *nodes_of(machine, second)]
    together = nodes_of(machine, range(first.start, second.stop))
    return _nodes(apart) > _nodes(together)


def _nodes(lies: Sequence[tuple[int, int, int]]) -> int:
    return sum(count for _, _, count in lies)


GAINS = 0.999
"""Step in another order over that in the order of ranks, from which on it is worth to read a plan
that is not in that order. Chosen: predictions are a few percent from what is measured."""


def best_order(plan: PipelinePlan, program: Program, machine: Machine) -> PipelinePlan:
    """A pipeline with its groups on the blocks of ranks where it is fastest and fits.

    Its stages stay as they are.

    Args:
        plan: of groups in the order of ranks, which is kept where no order is better.
        program: what it is for.
        machine: where it runs.
    """
    sizes = plan.group_devices
    if len(set(sizes)) == 1:
        several = orders(machine, sizes)
    else:  # blocks are other ones in each order, so none is known to be like another
        several = tuple(permutations(range(len(sizes)))) if len(sizes) <= MOST_BLOCKS else ()
    if len(several) <= 1:
        return plan
    staged = StagedProgram(program, plan.micro_batches, plan.cut)
    costs = PipelineCosts(staged, plan.plans, machine)
    others = [costs.simulated(replace(plan, standing=standing)) for standing in several[1:]]
    best = min(others, key=lambda one: (not one.fits, one.prediction.step_s))
    limit_s = GAINS * plan.prediction.step_s if plan.fits else inf
    if not best.fits or best.prediction.step_s > limit_s:
        return plan
    bound_s = plan.prediction.bound_s  # in which no link and no single device counts
    return replace(best, prediction=replace(best.prediction, bound_s=bound_s))


def which_lost(chosen: PipelinePlan, found: Iterable[PipelinePlan]) -> tuple[Alternative, ...]:
    """Of a pipeline out of the order of ranks, the fastest one in that order, which it beats.

    Args:
        chosen: the pipeline.
        found: those that it was chosen from.
    """
    in_order = [plan for plan in found if plan.is_in_rank_order]
    if not in_order or chosen.is_in_rank_order:
        return ()
    best = min(in_order, key=lambda plan: (not plan.fits, plan.prediction.step_s))
    return (
        Alternative(
            name=f"groups in the order of ranks, {best.micro_batches} micro-batches",
            step_s=best.prediction.step_s,
            peak_bytes=best.tightest_bytes[0],
            fits=best.fits,
        ),
    )
