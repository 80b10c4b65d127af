"""The folder in which kernels are kept."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from torch._inductor.runtime.cache_dir_utils import cache_dir

from weft.core.errors import RunError
from weft.fusion.compile import generation

__all__ = ["explained", "folder", "identity"]


def folder() -> Path:
    """Where kernels are kept: beside those of Inductor, by the version of what made them."""
    return Path(cache_dir()) / "weft" / generation()


def identity() -> str:
    """Tells the folder from others of the same version, and from itself before it was deleted.

    What Inductor keeps names kernels that lie there; elsewhere it has to be made anew.
    """
    path = folder() / "identity"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x") as file:  # of several processes one writes it
            file.write(uuid4().hex)
    except FileExistsError:
        pass
    except OSError:
        return ""  # nothing can be kept there, so nothing is
    return path.read_text()


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
