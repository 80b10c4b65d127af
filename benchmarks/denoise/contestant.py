"""Who takes part: what is put on a pipeline, and how long it takes in turns with the others."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from weft.diffusion import accelerate, restore

__all__ = ["Contestant", "accelerated", "speedups"]

BETWEEN = 5
"""Contestants that are timed between two times of the first. Chosen: a sixth of the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A way to be faster.

    Attributes:
        name: of whom.
        setting: in words.
        on: puts it on a pipeline, as long as a context lasts; gives what else computes, if any.
        inputs: what the pipeline is called with beside its own.
    """

    name: str
    setting: str
    on: Callable[[Any], AbstractContextManager[object]]
    inputs: Mapping[str, object] = field(default_factory=dict[str, object])


def accelerated(
    name: str, setting: str = "", *, small: Callable[[], Any] | None = None, **options: Any
) -> Contestant:
    """By weft.

    Args:
        name, setting: of the contestant.
        small: makes a small relative, of which each pipeline has its own; None for none.
        **options: as `weft.diffusion.accelerate` takes them.
    """

    @contextmanager
    def on(pipe: Any) -> Iterator[Any]:
        relative = None if small is None else small()
        accelerate(pipe, sketch_to=relative, **options)
        try:
            yield relative
        finally:
            restore(pipe)

    return Contestant(name=name, setting=setting, on=on)


def speedups(
    count: int,
    rounds: int,
    taken_s: Callable[[int], float],
    tell: Callable[[int], None] = lambda number: None,
) -> list[float]:
    """How many times as fast as the first each of some is, taking turns in changing order.

    The first is timed again after every few others, and each is compared with the two times of it
    around its own: what else a machine does comes and goes, and slows down both. The median of the
    rounds.

    Args:
        count: of them.
        rounds: how often each has its turn.
        taken_s: has one of them take its turn.
        tell: told which round begins.
    """
    found: list[list[float]] = [[] for _ in range(count)]
    order, chance = list(range(count)), random.Random(0)
    for number in range(rounds):
        tell(number)
        chance.shuffle(order)
        before_s = taken_s(0)
        for begin in range(0, count, BETWEEN):
            some = [(n, taken_s(n)) for n in order[begin : begin + BETWEEN]]
            after_s = taken_s(0)
            for n, own_s in some:
                found[n].append((before_s + after_s) / 2 / own_s)
            before_s = after_s
    return [median(own) for own in found]
