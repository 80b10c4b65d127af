"""The folder in which kernels are kept."""

from __future__ import annotations

from pathlib import Path

from torch._inductor.runtime.cache_dir_utils import cache_dir

from weft.core.errors import RunError
from weft.fusion.compile import generation

__all__ = ["explained", "folder"]


def folder() -> Path:
    """Where kernels are kept: beside those of Inductor, by the version of what made them."""
    return Path(cache_dir()) / "weft" / generation()


def explained(error: Exception) -> Exception:
    """What went wrong while a kernel was made; if the folder did, what to do about it."""
    if not isinstance(error, OSError):
        return error
    found = RunError(
        need="a folder for kernels that can be written and has room",
        got=str(error),
        hint="let TORCHINDUCTOR_CACHE_DIR name another one",
    )
    found.__cause__ = error
    return found
