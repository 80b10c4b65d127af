"""Where in a step the code that runs right now stands: its phase and its module path.

The step, the optimizers and the module hooks mark their position; the tracer reads it. On
real tensors nobody reads it and the marks cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from weft.program.graph import Phase

__all__ = ["Position", "at", "here"]


@dataclass(frozen=True, slots=True)
class Position:
    """Phase and module path of the code that runs."""

    phase: Phase = Phase.FORWARD
    scope: str = ""


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
    token = _HERE.set(Position(phase, scope))
    try:
        yield
    finally:
        _HERE.reset(token)
