"""Trainers of transformers and TRL: GAC in them, and asynchronous training of a task on a CPU.

    trainer = AsyncGRPOTrainer(..., callbacks=[weft.rl.GACCallback()])

Needs the extra `rl`. Names load when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weft.core.lazy import lazy
from weft.rl.trl.layout import require

if TYPE_CHECKING:
    from weft.rl.trl.callback import GACCallback as GACCallback
    from weft.rl.trl.cpu import on_cpu as on_cpu
    from weft.rl.trl.engine import Outcome as Outcome
    from weft.rl.trl.engine import train as train

_HOME = {
    "GACCallback": "weft.rl.trl.callback",
    "Outcome": "weft.rl.trl.engine",
    "on_cpu": "weft.rl.trl.cpu",
    "train": "weft.rl.trl.engine",
}
"""Where each name lives."""

__all__ = ["GACCallback", "Outcome", "on_cpu", "train"]

# Before any module of this package is loaded, so that what is missing is named by its extra.
require("transformers", "accelerate")


__getattr__ = lazy(__name__, _HOME)
