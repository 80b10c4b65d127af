"""Progress of long work, told to whoever wants to show it."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "silent"]


class Progress(Protocol):
    """Called now and then by work that takes long."""

    def __call__(self, stage: str, share: float | None, detail: str = "") -> None:
        """Tell how far a stage is.

        Args:
            stage: what is being done; a stage begins when it is first named.
            share: how much of it is done, from 0 to 1; None where that is not known.
            detail: what it is busy with right now.
        """
        ...


def silent(stage: str, share: float | None, detail: str = "") -> None:
    """Progress that nobody watches."""
