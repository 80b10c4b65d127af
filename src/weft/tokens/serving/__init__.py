"""A served model: what a step of its server takes, and what tokens of each class therefore cost."""

from __future__ import annotations

from weft.tokens.serving.steps import ResourceTime, StepLoad, StepTimes

__all__ = ["ResourceTime", "StepLoad", "StepTimes"]
