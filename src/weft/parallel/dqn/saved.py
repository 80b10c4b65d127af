# pyright: standard
"""A search as a file, so that one that was killed goes on.

What was predicted and what was learnt are kept; what the agent remembers is not, nor what is learnt
about layers, since both are soon made again. The file says what was asked, and is of use for
nothing else.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from weft.core.digest import digest
from weft.core.errors import FileError, MismatchError
from weft.parallel.dqn.agent import Agent
from weft.parallel.dqn.hybrid import Decided, HybridEnvironment
from weft.parallel.dqn.layer_search import LayerSearch
from weft.parallel.plan import Prediction
from weft.parallel.request import PlanRequest

__all__ = ["load_search", "save_search"]

KEY, VERSION = "weft_dqn", 1
"""Entry that says what the file is, and its format."""
_DAMAGED = (
    *(OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, AttributeError),
    pickle.UnpicklingError,
)


def save_search(
    path: Path,
    request: PlanRequest,
    agent: Agent,
    environment: HybridEnvironment,
    layers: LayerSearch,
) -> None:
    """Write a search; the file appears whole or not at all.

    Raises:
        FileError: the file cannot be written.
    """
    known = [
        (
            (one.data, one.variables, one.stored),
            [list(pair) for pair in one.placements],
            None if prediction is None else asdict(prediction),
        )
        for one, prediction in environment.known.items()
    ]
    content = {
        KEY: VERSION,
        "question": _question(request),
        "agent": agent.state(),
        "known": known,
        "unit_s": environment.unit_s,
        "layers": layers.state(),
    }
    beside = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        torch.save(content, beside)
        beside.replace(path)
    except (OSError, RuntimeError) as error:  # torch raises the latter where a folder is missing
        raise FileError(
            need="a place to write a search to",
            got=f"{path}: {error}".splitlines()[0],
            hint="choose a file in a folder that exists, may be written to and has room",
        ) from error
    finally:
        beside.unlink(missing_ok=True)


def load_search(
    path: Path,
    request: PlanRequest,
    agent: Agent,
    environment: HybridEnvironment,
    layers: LayerSearch,
) -> bool:
    """Go on from a file; false if there is none yet.

    Raises:
        FileError: the file is no search, is damaged, or comes from a newer weft.
        MismatchError: it is of another question.
    """
    if not path.exists():
        return False
    try:
        content: Mapping[str, Any] = torch.load(path, weights_only=True)
        version = content[KEY]
    except _DAMAGED as error:
        raise _unread(path, type(error).__name__) from error
    if version != VERSION:
        raise _unread(path, f"format {version}")
    if content.get("question") != _question(request):
        raise MismatchError(
            need=f"a search for {request.program.name} on {request.machine.name}, of the same"
            " sizes, limit, mesh and pins",
            got=f"{path}, which is of another question",
            hint="name another file, or delete this one",
        )
    try:
        known = {
            Decided(data, variables, stored, tuple((node, place) for node, place in placements)): (
                None if figures is None else Prediction(**figures)
            )
            for (data, variables, stored), placements, figures in content["known"]
        }
        agent.resume(content["agent"])
        environment.known.update(known)
        environment.unit_s = float(content["unit_s"])
        layers.resume(content.get("layers", {}))
    except _DAMAGED as error:
        raise _unread(path, type(error).__name__) from error
    return True


def _unread(path: Path, got: str) -> FileError:
    return FileError(
        need=f"a search of format {VERSION} that `weft plan --resume` wrote",
        got=f"{path}: {got}",
        hint="name another file, or delete this one",
    )


def _question(request: PlanRequest) -> str:
    """What is asked, but for how hard to look."""
    return digest(
        {
            "program": request.program.digest,
            "machine": request.machine.digest,
            "limit": request.limit_bytes,
            "mesh": None if request.mesh is None else list(request.mesh.shape),
            "pins": [str(pin) for pin in request.pins],
        }
    )
