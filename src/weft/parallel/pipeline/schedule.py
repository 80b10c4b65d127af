"""Schedules: in which order each group of devices works on its stages and micro-batches.

    gpipe          all micro-batches forward, then all backward: fewest constraints, and every
                   micro-batch's activations are kept at once
    1f1b           as few micro-batches under way as fill the pipeline: stage s keeps S - s
    interleaved    each group has several stages, S / groups of them, so that it waits for a
                   smaller part of the model at the start and at the end
    zero-bubble    gradients of activations first, those of weights where a group would wait

Groups are counted from 0; stage s belongs to group s mod (number of groups).

Sources: GPipe (Huang et al., arXiv 1811.06965); 1F1B and interleaving (Narayanan et al.,
arXiv 2104.04473, sections 2.2); zero bubble (Qi et al., arXiv 2401.10241, section 2: ZB-H1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from types import MappingProxyType

from weft.core.errors import InputError

__all__ = ["SCHEDULES", "Action", "Work", "in_flight", "order", "require_shape"]


class Work(Enum):
    """What a stage does for one micro-batch."""

    FORWARD = "F"
    BACKWARD = "B"
    """All gradients."""
    INPUTS = "I"
    """Gradients that the stage before waits for."""
    WEIGHTS = "W"
    """The rest of the gradients."""


@dataclass(frozen=True, slots=True)
class Action:
    """Work of one stage on one micro-batch.

    Example:
        >>> str(Action(3, Work.FORWARD, 1))
        '3F1'
    """

    stage: int
    work: Work
    micro_batch: int

    def __str__(self) -> str:
        return f"{self.stage}{self.work.value}{self.micro_batch}"


@lru_cache(maxsize=64)
def order(
    schedule: str, num_stages: int, num_groups: int, micro_batches: int
) -> tuple[tuple[Action, ...], ...]:
    """What each group does, in order.

    Args:
        schedule: one of `SCHEDULES`.
        num_stages: stages of the pipeline, a multiple of the groups.
        num_groups: groups of devices.
        micro_batches: parts of the batch.

    Raises:
        InputError: no such schedule, or it does not fit these numbers.

    Example:
        >>> [" ".join(map(str, group)) for group in order("1f1b", 2, 2, 3)]
        ['0F0 0F1 0B0 0F2 0B1 0B2', '1F0 1B0 1F1 1B1 1F2 1B2']
    """
    require_shape(schedule, num_stages, num_groups, micro_batches)
    make = SCHEDULES[schedule]
    return tuple(tuple(make(g, num_stages, num_groups, micro_batches)) for g in range(num_groups))


def in_flight(schedule: str, num_groups: int, chunks: int, micro_batches: int) -> list[float]:
    """Of each stage, micro-batches whose activations are kept at once.

    Args:
        schedule: 1f1b, interleaved or zero-bubble.
        num_groups: groups of devices.
        chunks: stages of each group.
        micro_batches: parts of the batch.

    Example:
        >>> in_flight("1f1b", 3, 1, 8), in_flight("zero-bubble", 3, 1, 2)
        ([3, 2, 1], [2, 2, 2])
    """
    groups, count = num_groups, micro_batches
    if schedule == "zero-bubble":
        return [min(count, groups)] * groups
    if schedule == "1f1b":
        return [min(count, groups - group) for group in range(groups)]
    ahead = [(chunks - 1) * groups + 2 * (groups - 1 - group) + 1 for group in range(groups)]
    return [min(number, count * chunks) / chunks for number in ahead] * chunks


def require_shape(schedule: str, num_stages: int, num_groups: int, micro_batches: int) -> None:
    """Check that a schedule exists and fits.

    Raises:
        InputError: it does not.
    """
    if schedule not in SCHEDULES:
        raise InputError(
            need=f"a schedule: {', '.join(SCHEDULES)}",
            got=repr(schedule),
            hint="1f1b is the usual one",
        )
    if min(num_stages, num_groups, micro_batches) < 1 or num_stages % num_groups:
        raise InputError(
            need="at least one micro-batch, and stages in a multiple of the groups of devices",
            got=f"{num_stages} stages on {num_groups} groups, {micro_batches} micro-batches",
            hint="every group has as many stages as the others",
        )
    if schedule == "interleaved":
        if num_stages == num_groups or micro_batches % num_groups:
            raise InputError(
                need="several stages for each group, and micro-batches in a multiple of the groups",
                got=f"{num_stages} stages on {num_groups} groups, {micro_batches} micro-batches",
                hint="that is what interleaving is; use 1f1b with one stage for each group",
            )
    elif num_stages != num_groups:
        raise InputError(
            need=f"one stage for each group with {schedule}",
            got=f"{num_stages} stages on {num_groups} groups",
            hint="use interleaved for several stages on a group",
        )


def _gpipe(group: int, stages: int, groups: int, count: int) -> list[Action]:
    forward = [Action(group, Work.FORWARD, m) for m in range(count)]
    return forward + [Action(group, Work.BACKWARD, m) for m in range(count)]


def _one_forward_one_backward(group: int, stages: int, groups: int, count: int) -> list[Action]:
    forward = [Action(group, Work.FORWARD, m) for m in range(count)]
    backward = [Action(group, Work.BACKWARD, m) for m in range(count)]
    return _alternating(forward, backward, min(count, stages - group))


def _alternating(forward: Sequence[Action], backward: Sequence[Action], ahead: int) -> list[Action]:
    """`ahead` forward actions, then a backward one after each, and the backward ones left."""
    actions = list(forward[:ahead])
    for number, action in enumerate(backward):
        actions.append(action)
        actions.extend(forward[ahead + number : ahead + number + 1])
    return actions


def _interleaved(group: int, stages: int, groups: int, count: int) -> list[Action]:
    chunks = stages // groups

    def nth(number: int, work: Work) -> Action:
        """Groups of `groups` micro-batches pass all chunks before the next ones come."""
        turn, within = divmod(number, groups * chunks)
        chunk, micro = divmod(within, groups)
        if work is Work.BACKWARD:
            chunk = chunks - 1 - chunk
        return Action(chunk * groups + group, work, turn * groups + micro)

    total = count * chunks
    forward = [nth(number, Work.FORWARD) for number in range(total)]
    backward = [nth(number, Work.BACKWARD) for number in range(total)]
    ahead = (chunks - 1) * groups + 2 * (groups - group - 1) + 1
    return _alternating(forward, backward, min(ahead, total))


def _zero_bubble(group: int, stages: int, groups: int, count: int) -> list[Action]:
    """1F1B with the backward pass in two; weights wait until the pipeline drains.

    As many weight gradients wait as there are stages before this one, so that no stage keeps
    more micro-batches than the first does.
    """
    actions: list[Action] = []
    waiting: list[Action] = []
    for action in _one_forward_one_backward(group, stages, groups, count):
        if action.work is Work.FORWARD:
            actions.append(action)
            continue
        actions.append(Action(action.stage, Work.INPUTS, action.micro_batch))
        waiting.append(Action(action.stage, Work.WEIGHTS, action.micro_batch))
        if len(waiting) > group:
            actions.append(waiting.pop(0))
    return actions + waiting


_Maker = Callable[[int, int, int, int], list[Action]]

SCHEDULES: Mapping[str, _Maker] = MappingProxyType(
    {
        "gpipe": _gpipe,
        "1f1b": _one_forward_one_backward,
        "interleaved": _interleaved,
        "zero-bubble": _zero_bubble,
    }
)
"""Makers of schedules by name: (group, stages, groups, micro-batches) to the group's actions."""
