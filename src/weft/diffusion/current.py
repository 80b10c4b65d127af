"""Which run a call of a denoiser belongs to."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["SESSION", "within"]

SESSION: ContextVar[tuple[object, object] | None] = ContextVar("weft_session", default=None)
"""The run that a call belongs to, and its pipeline; without one, the thread tells runs apart."""


@contextmanager
def within(key: object, pipeline: object) -> Generator[None]:
    """Have calls belong to a run of a pipeline."""
    token = SESSION.set((key, pipeline))
    try:
        yield
    finally:
        SESSION.reset(token)
