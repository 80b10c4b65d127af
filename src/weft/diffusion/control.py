"""From the strengths of a large model's control to those of a small one's, by depth.

A Wan VACE is told how strongly its control counts in each of its controlled blocks. Relatives are
controlled in other numbers of blocks: the published one of 14 B in every fifth of 40, that of 1.3 B
in every second of 30. A strength is taken for one of a depth, from 0 at the first block to 1 behind
the last, and those of the small model are interpolated.

Source: `vace_layers` of the published configurations. That strengths go by depth is our own; where
all are one number, as pipelines have it unless they are told otherwise, any reading gives that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weft.diffusion.compat import Call

__all__ = ["Controls", "controls"]

STRENGTHS = "control_hidden_states_scale"


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """Translates calls of a large denoiser to a small one.

    Attributes:
        large, small: depths of their controlled blocks, rising.
    """

    large: tuple[float, ...]
    small: tuple[float, ...]

    def __call__(self, call: Call) -> tuple[Call, Callable[[Tensor], Tensor]]:
        """The call of the small one, and its answer as it is."""
        given = call.kwargs.get(STRENGTHS)
        if not isinstance(given, Tensor):
            return call, _as_it_is
        found = np.interp(self.small, self.large, given.tolist())
        own = torch.as_tensor(found, dtype=given.dtype, device=given.device)
        return replace(call, kwargs={**call.kwargs, STRENGTHS: own}), _as_it_is


def controls(large: Any, small: Any) -> Controls | None:
    """How strengths are translated; None where both are controlled at the same depths, or not."""
    depths = [_depths(model.config) for model in (large, small)]
    if depths[0] == depths[1] or not all(depths):
        return None
    return Controls(large=depths[0], small=depths[1])


def _depths(config: Any) -> tuple[float, ...]:
    blocks = getattr(config, "vace_layers", None) or ()
    return tuple(block / config.num_layers for block in blocks)


def _as_it_is(answer: Tensor) -> Tensor:
    return answer
