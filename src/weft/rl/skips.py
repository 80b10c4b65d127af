"""How often steps are skipped, and when that has to end.

A skipped step leaves the weights where they are, so that what follows looks more alike still.
Skips in a row are therefore bounded, and a run in which they become a habit ends them for good,
with a warning: its thresholds are wrong.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Mapping

from weft.rl.alignment import Thresholds

__all__ = ["Skips"]


class Skips:
    """Counts skips and says whether there may be another.

    Args:
        thresholds: with the bounds.
    """

    def __init__(self, thresholds: Thresholds) -> None:
        self._bounds = thresholds
        self._recent: deque[bool] = deque(maxlen=thresholds.window)
        self._in_a_row = 0
        self._is_over = False

    @property
    def may_skip(self) -> bool:
        """Whether the next step may be skipped."""
        return not self._is_over and self._in_a_row < self._bounds.consecutive_skips

    def note(self, skipped: bool) -> None:
        """Count a step; warns when it is the last one that was skipped."""
        self._in_a_row = self._in_a_row + 1 if skipped else 0
        self._recent.append(skipped)
        if self._is_over or sum(self._recent) <= self._bounds.window_skips:
            return
        self._is_over = True
        warnings.warn(
            f"{sum(self._recent)} of the last {len(self._recent)} steps were skipped, because the"
            f" cosine of their gradients was above cosine_high={self._bounds.cosine_high}. No more"
            " steps will be skipped in this run: gradients line up while weights stand still.",
            UserWarning,
            stacklevel=4,
        )

    def state(self) -> dict[str, object]:
        """For a checkpoint."""
        return {
            "recent": list(self._recent),
            "in_a_row": self._in_a_row,
            "is_over": self._is_over,
        }

    def load(self, state: Mapping[str, object]) -> None:
        """From a checkpoint."""
        recent = state.get("recent", ())
        self._recent = deque(
            map(bool, recent if isinstance(recent, (list, tuple)) else ()),
            maxlen=self._bounds.window,
        )
        self._in_a_row = int(str(state.get("in_a_row", 0)))
        self._is_over = bool(state.get("is_over", False))
