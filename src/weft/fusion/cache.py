"""The folder in which kernels are kept."""

from __future__ import annotations

from pathlib import Path

from torch._inductor.runtime.cache_dir_utils import cache_dir

from weft.fusion.compile import generation

__all__ = ["folder"]


def folder() -> Path:
    """Where kernels are kept: beside those of Inductor, by the version of what made them."""
    return Path(cache_dir()) / "weft" / generation()
