"""What arms do not explain of the inputs, as a control for what drives inputs and outcomes alike.

With arms drawn at random, an input's logarithm is the mean of its cell (model and arm) and a rest v
in which the task's difficulty hides. A logit that holds v has tokens moved by the draw alone:

    log odds = level + f(l) + rho' v

What passes at inputs of our choosing is then the mean over everybody's v, which is the *average
structural function*. Influences count that v is itself estimated.

Source: Rivers and Vuong, Journal of Econometrics 1988; averaging: Blundell and Powell, Review of
Economic Studies 2004; two steps: Newey and McFadden, Handbook of Econometrics 1994, section 6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from weft.tokens.micro.estimate import STEP, Estimate, Floats, Ints, cluster_sums, jacobian

__all__ = ["Controls"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Controls:
    """Rests of the inputs.

    Attributes:
        rest: v [n, k].
        cell: model and arm of each trial [n].
        clusters: task of each trial [n].
    """

    rest: Floats
    cell: Ints
    clusters: Ints

    @staticmethod
    def of(logs: Floats, cell: Ints, clusters: Ints) -> Controls:
        """From logarithms of inputs [n, k]."""
        means = cell_means(logs, cell)
        return Controls(rest=logs - means[cell], cell=cell, clusters=clusters)

    def added(self, by_rest: Floats) -> Floats:
        """What the estimation of v adds to influences [n, q].

        Args:
            by_rest: derivative of what is averaged by each trial's v [n, k, q].
        """
        count, k, q = by_rest.shape
        means = cell_means(by_rest.reshape(count, k * q), self.cell).reshape(-1, k, q)
        return -np.einsum("nk,nkq->nq", self.rest, means[self.cell])

    def averaged(
        self, estimate: Estimate, function: Callable[[Floats, Floats], Floats]
    ) -> Estimate:
        """The mean of a function over everybody's v.

        Args:
            estimate: of the parameters.
            function: of parameters and rests; [n, q].
        """
        theta = estimate.values
        each = function(theta, self.rest)
        slope = jacobian(lambda at: function(at, self.rest).mean(axis=0), theta)
        steps = STEP * np.eye(self.rest.shape[1])
        by_rest = np.stack(
            [function(theta, self.rest + s) - function(theta, self.rest - s) for s in steps], axis=1
        )
        influence = each - each.mean(axis=0) + self.added(by_rest / (2.0 * STEP))
        own = cluster_sums(influence, self.clusters)
        return Estimate(values=each.mean(axis=0), influence=own + estimate.influence @ slope.T)


def cell_means(columns: Floats, cell: Ints) -> Floats:
    """Means by cell [cells, k]."""
    sums = np.zeros((int(cell.max()) + 1, columns.shape[1]))
    np.add.at(sums, cell, columns)
    return sums / np.bincount(cell)[:, None]
