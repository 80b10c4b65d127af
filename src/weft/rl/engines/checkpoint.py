"""The one file that a run goes on from: it appears whole or not at all.

Written beside the old one, flushed to the disk, and put in its place: a kill at any moment leaves
one or the other. Tensors and plain values only, so that reading it runs no code.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from weft.core.errors import FileError

__all__ = ["load_checkpoint", "save_checkpoint"]

KIND, VERSION = "rl checkpoint", 1


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state in place of the one that is there.

    Raises:
        FileError: it cannot be written; the old one is as it was.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            torch.save({"weft": KIND, "version": VERSION, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise FileError(
            need="a place to write a checkpoint to",
            got=f"{path}: {error}",
            hint="free some disk space; the checkpoint before this one is whole",
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote.

    Raises:
        FileError: there is none, or it is something else.
    """
    if not path.is_file():
        raise FileError(
            need="a checkpoint to go on from",
            got=f"no file {path}",
            hint="begin the run without --resume",
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if (state["weft"], state["version"]) != (KIND, VERSION):
            raise ValueError(f"{state['weft']} of version {state['version']}")
    except Exception as error:  # what unpickling damaged bytes ends with is not documented
        raise FileError(
            need=f"a checkpoint of reinforcement learning, of version {VERSION}",
            got=f"{path}: {type(error).__name__}: {error}",
            hint="begin the run anew in another folder",
        ) from error
    return state
