"""A pipeline that is accelerated for as long as a test needs it."""

from __future__ import annotations

from contextlib import contextmanager

from weft.diffusion import accelerate, report, restore

__all__ = ["accelerated"]


@contextmanager
def accelerated(pipe, **options):
    """Watched, and restored whatever happens."""
    accelerate(pipe, **options)
    try:
        with report(pipe) as found:
            yield found
    finally:
        restore(pipe)
