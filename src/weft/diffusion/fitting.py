"""Predictions fitted to recorded runs: how much each of the last values counts, by least squares.

    minimize over w   sum over prompts |value_i - sum_n w_n value_n|^2 + r sum_n g_n (w_n - l_n)^2

with l the weights of the straight line through the last two values, g_n the squared length of
value n, and r small: where recordings say nothing, the line is followed. What a step's output is, a
polynomial does not know: outputs bend as noise gives way to shapes, in the same steps for all
prompts, and that is learnt here.

Knows recorded values; does not know plans.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from weft.diffusion.extrapolate import weights

__all__ = ["Fitting"]

Vectors = NDArray[np.float64]
RIDGE = 1e-3
"""Share of a value's own length that pulls towards the line. Derived: what sketches of 512 numbers
misjudge a scalar product by is 0.04 of the lengths; its square."""


class Fitting:
    """Weights of one quantity.

    Args:
        values: of each prompt [steps, numbers].
        positions: noise level of each step, and where the last one leads [steps + 1].
        is_affine: whether weights sum up to 1, as they have to where only differences of values
            are known.
    """

    def __init__(
        self, values: Sequence[Vectors], positions: Vectors, *, is_affine: bool = False
    ) -> None:
        self._products = np.stack([own @ own.T for own in values])
        self._positions = positions
        self._is_affine = is_affine

    def weights(self, step: int, used: tuple[int, ...], but: int | None = None) -> Vectors:
        """How much the values of some steps count for another one.

        Args:
            step: which is predicted.
            used: steps whose values are known.
            but: a prompt that is left out, to be predicted; None for none. A prompt that is alone
                is not left out.
        """
        kept = [n for n in range(len(self._products)) if n != but] or [0]
        products = self._products[kept].sum(0)
        line = self._line(step, used)
        if not self._is_affine:
            return _least_squares(products, list(used), step, line)
        *before, last = used
        # Of differences from the last value, which takes what is missing to 1.
        change = np.eye(len(products))
        change[:, last] -= 1.0
        found = _least_squares(change @ products @ change.T, before, step, line[:-1])
        return np.asarray([*found, 1.0 - found.sum()])

    def _line(self, step: int, used: tuple[int, ...]) -> Vectors:
        last = used[-2:]
        line = weights([float(self._positions[n]) for n in last], float(self._positions[step]))
        return np.asarray([*[0.0] * (len(used) - len(last)), *line])


def _least_squares(products: Vectors, own: list[int], step: int, line: Vectors) -> Vectors:
    pull = RIDGE * np.diagonal(products)[own]
    matrix = products[np.ix_(own, own)] + np.diag(pull)
    found = np.linalg.lstsq(matrix, products[own, step] + pull * line, rcond=None)[0]
    return found.astype(np.float64)
