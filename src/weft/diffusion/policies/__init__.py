"""Policies: who decides what a denoising step computes."""

from __future__ import annotations

from weft.diffusion.policies.calibrated import Calibrated
from weft.diffusion.policies.fixed import Fixed
from weft.diffusion.policies.mixcache import MixCache
from weft.diffusion.policies.mixed import Mixed
from weft.diffusion.policies.placed import Placed
from weft.diffusion.policies.sketch import Sketch

__all__ = ["Calibrated", "Fixed", "MixCache", "Mixed", "Placed", "Sketch"]
