"""Progress of long work, told to whoever wants to show it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Progress", "silent"]

Progress: TypeAlias = Callable[[str, float], None]
"""Called with what is being done and the share of it that is done, from 0 to 1."""


def silent(stage: str, share: float) -> None:
    """Progress that nobody watches."""
