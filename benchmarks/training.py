"""What scripts that train small networks share."""

from __future__ import annotations

import math
from pathlib import Path

import torch

__all__ = ["cosine", "save"]


def cosine(share: float, least: float) -> float:
    """Share of the highest rate after a share of a run: all at first, `least` at last."""
    return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * share))


def save(path: Path, state: object) -> None:
    """Write in one step, so that what is killed meanwhile leaves what was there."""
    beside = path.with_suffix(".new")
    torch.save(state, beside)
    beside.replace(path)
