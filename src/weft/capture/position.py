"""Where in a step the code that runs right now stands: its phase, module path and pins.

The step, the optimizers and the module hooks mark their position; the tracer reads it. On
real tensors nobody reads it and the marks cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from weft.program.annotation import Annotation
from weft.program.graph import Phase

__all__ = ["Position", "at", "here", "pinned_at"]


@dataclass(frozen=True, slots=True)
class Position:
    """Phase and module path of the code that runs, and the pins of the blocks around it.

    Of a placement and of a stage there is one pin at most.
    """

    phase: Phase = Phase.FORWARD
    scope: str = ""
    pins: tuple[Annotation, ...] = ()


_START = Position()
_HERE: ContextVar[Position] = ContextVar("weft_position")


def here() -> Position:
    """The position of the caller."""
    return _HERE.get(_START)


@contextmanager
def at(phase: Phase, scope: str) -> Iterator[None]:
    """Mark everything inside as belonging to a phase and a module path.

    Example:
        >>> with at(Phase.UPDATE, "optimizer.weight"):
        ...     here().scope
        'optimizer.weight'
    """
    token = _HERE.set(Position(phase, scope, here().pins))
    try:
        yield
    finally:
        _HERE.reset(token)


@contextmanager
def pinned_at(pin: Annotation) -> Iterator[None]:
    """Mark everything inside as pinned; an inner placement or stage takes the place of an outer."""
    outside = here()
    others = [other for other in outside.pins if other.is_stage is not pin.is_stage]
    token = _HERE.set(Position(outside.phase, outside.scope, (*others, pin)))
    try:
        yield
    finally:
        _HERE.reset(token)
