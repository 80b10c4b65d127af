"""Rows of a batch that are decided each by itself.

A batch of videos goes through its steps together, but not all of them change in the same steps.
Here each row is a run of its own: it has its own decider and its own history, and what a call
computes is computed row by row. What computing rows together would gain is given up, which is
little where one video keeps a device busy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from weft.diffusion.calls import answer_of, is_guided, output_of, position_of
from weft.diffusion.compat import Call
from weft.diffusion.controller import BOTH, Controller
from weft.diffusion.current import within
from weft.diffusion.denoiser import Denoiser
from weft.diffusion.request import Row

__all__ = ["ByRows"]


class ByRows(Controller):
    """Follows a policy on each row of a batch."""

    def call(self, denoiser: Denoiser, call: Call) -> Any:
        """Answer a call of a denoiser by its pipeline, row by row."""
        key, pipeline = self._session()
        position_of(call.kwargs)  # says what is missing, if arguments have no names
        outputs = 2 if call.branch == BOTH and is_guided(pipeline, self.family) else 1
        count = len(call.kwargs["hidden_states"]) // outputs
        answers: list[Tensor] = []
        for row in self._rows_of(key):
            if row.row >= count:  # of a larger batch, which broke off
                self._over(row)
        try:
            for row in range(count):
                places = [row + number * count for number in range(outputs)]
                own = replace(
                    call, kwargs=_taken(call.kwargs, places, count * outputs, self.family.batched)
                )
                with within(Row(key, row), pipeline):
                    answers.append(output_of(super().call(denoiser, own)))
        except BaseException:
            self._end(key)  # rows that had been answered start afresh, too
            raise
        made = torch.cat([own.chunk(outputs)[n] for n in range(outputs) for own in answers])
        return answer_of(made, call.kwargs)

    def finish(self) -> None:
        """The pipeline has come to its end: a run of each row has."""
        key, pipeline = self._session()
        try:
            for row in self._rows_of(key):
                with within(row, pipeline):
                    super().finish()
        finally:
            self._end(key)

    def _rows_of(self, key: object) -> list[Row]:
        """Rows of a batch that are under way, in order."""
        rows = [own for own in self._requests if isinstance(own, Row) and own.session == key]
        return sorted(rows, key=lambda own: own.row)

    def _end(self, key: object) -> None:
        for row in self._rows_of(key):
            self._over(row)


def _taken(
    kwargs: dict[str, Any], places: Sequence[int], count: int, batched: Sequence[str]
) -> dict[str, Any]:
    """The arguments of a call for some of its rows."""
    return {
        name: value[list(places)]
        if name in batched and isinstance(value, Tensor) and value.ndim and len(value) == count
        else value
        for name, value in kwargs.items()
    }
