"""A pipeline that is accelerated for as long as a test needs it."""

from __future__ import annotations

from contextlib import contextmanager

from benchmarks.denoise_matrix.pipelines import _wan_denoiser
from weft.diffusion import accelerate, report, restore

__all__ = ["accelerated", "small_of", "stopping"]


@contextmanager
def accelerated(pipe, **options):
    """Watched, and restored whatever happens."""
    accelerate(pipe, **options)
    try:
        with report(pipe) as found:
            yield found
    finally:
        restore(pipe)


def small_of(layers=2):
    """A relative of the Wan 2.1 of fewer blocks."""
    return _wan_denoiser(7, layers=layers)


def stopping(last):
    """A callback that breaks a run off behind a step."""

    def stop(pipe, step, timestep, kwargs):
        if step == last:
            raise KeyboardInterrupt
        return kwargs

    return stop
