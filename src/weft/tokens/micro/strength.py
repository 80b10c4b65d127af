"""How much arms move each input: the F statistic of the first stage, robust to clusters.

With several inputs, of each one the part that the others do not already account for. Below ten,
estimates lean towards those without arms and intervals are too short.

Source: Staiger and Stock, Econometrica 1997 (ten); Sanderson and Windmeijer, Journal of
Econometrics 2016 (several inputs); Angrist and Pischke, Mostly Harmless Econometrics, 2009, section
4.6.
"""

from __future__ import annotations

import numpy as np

from weft.tokens.micro.estimate import Floats, Ints, cluster_sums
from weft.tokens.micro.least_squares import Projection, onto

__all__ = ["WEAK", "first_stage"]

WEAK = 10.0
"""Source: Staiger and Stock 1997, a bias of a tenth of ordinary least squares'."""


def first_stage(
    logs: Floats, instruments: Floats, own: Floats, clusters: Ints, project: Projection
) -> tuple[float, ...]:
    """F of each input.

    Args:
        logs: of inputs [n, k].
        instruments: columns of cells [n, z].
        own: columns that stand in the outcome's equation as well [n, m].
        clusters: task of each trial [n].
        project: what is done to all of them first (off task means, or nothing).
    """
    logs, instruments, own = project(logs), project(instruments), project(own)
    k = logs.shape[1]
    # Levels are no instruments: everything is taken off them first.
    free: Projection = _rest_of(own)
    logs, instruments = free(logs), free(instruments)
    base = _basis(instruments)
    found: list[float] = []
    for place in range(k):
        others = np.delete(logs, place, axis=1)
        fitted = onto(base)(others) if k > 1 else others
        rest = logs[:, place] - others @ np.linalg.lstsq(fitted, logs[:, place], rcond=None)[0]
        slope = base.T @ rest
        influence = base * (rest - base @ slope)[:, None]
        sums = cluster_sums(influence, clusters) * len(rest)
        wald = float(slope @ np.linalg.pinv(sums.T @ sums, hermitian=True) @ slope)
        found.append(wald / max(base.shape[1] - k + 1, 1))
    return tuple(found)


def _rest_of(columns: Floats) -> Projection:
    if not columns.shape[1] or not np.any(np.abs(columns) > 1e-12):
        return lambda others: others
    part = onto(columns)
    return lambda others: others - part(others)


def _basis(columns: Floats) -> Floats:
    base, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return base[:, sizes > max(float(sizes[0]), 1e-300) * 1e-10]
