"""Which model a task goes to, from what is seen of it beforehand and what a dollar has to bring.

Of each model a logit says how likely it passes, and a regression of logarithms what it costs, both
by features of the prompt alone and held down by a ridge. A task goes to the model of most `chance -
price * cost`. The price of a dollar is the one at which the tasks that it learnt from keep to the
budget: a threshold that means something.

Source: ridge in logits: le Cessie and van Houwelingen, Applied Statistics 1992. The rule is the
first-order condition of `weft.tokens.allocate.split`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from weft.core.errors import InputError
from weft.tokens.micro.logit import logistic
from weft.tokens.micro.scoring import Point, minimise

__all__ = ["Router", "fit_router"]

Floats: TypeAlias = NDArray[np.float64]
HIGHEST = 1e12
"""Price of a dollar beyond which only the cheapest model is left. Chosen: far beyond use."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Router:
    """What was learnt.

    Attributes:
        models: names.
        centre, scale: of the features [f].
        chances: weights of the log odds, the constant first [models, 1 + f].
        costs: weights of the logarithm of dollars, the constant first [models, 1 + f].
    """

    models: tuple[str, ...]
    centre: Floats
    scale: Floats
    chances: Floats
    costs: Floats

    def predicted(self, features: Floats) -> tuple[Floats, Floats]:
        """Chances of passing and costs, by task and model [n, models], [usd]."""
        design = _with_constant((features - self.centre) / self.scale)
        return logistic(design @ self.chances.T), np.exp(design @ self.costs.T)

    def routed(self, features: Floats, price: float) -> NDArray[np.int64]:
        """Places of the models that tasks go to [n].

        Args:
            features: of the tasks [n, f].
            price: chance of passing that a dollar has to bring.
        """
        chances, costs = self.predicted(features)
        return np.argmax(chances - price * costs, axis=1)

    def price_for(self, features: Floats, usd_per_task: float) -> float:
        """The lowest price at which tasks such as these keep to a budget, as predicted.

        Raises:
            InputError: the cheapest models cost more.
        """
        _, costs = self.predicted(features)
        rows = np.arange(len(costs))
        if float(costs.min(axis=1).mean()) > usd_per_task:
            raise InputError(
                need="a budget for the cheapest models",
                got=f"{usd_per_task:g} usd a task, where they take {costs.min(axis=1).mean():.3g}",
                hint="raise the budget, or offer a cheaper model",
            )
        low, high = 0.0, HIGHEST
        if float(costs[rows, self.routed(features, 0.0)].mean()) <= usd_per_task:
            return 0.0
        while high > low * (1.0 + 1e-9) + 1e-9:
            # Prices span many powers of ten: halve their logarithms once away from zero.
            middle = float(np.sqrt(low * high)) if low > 0.0 else high * 1e-2
            spent = float(costs[rows, self.routed(features, middle)].mean())
            low, high = (middle, high) if spent > usd_per_task else (low, middle)
        return high


def fit_router(
    features: Floats,
    passed: Floats,
    usd: Floats,
    models: Sequence[str],
    *,
    ridge: float = 1.0,
) -> Router:
    """Learn from tasks that every model was tried on.

    Args:
        features: seen of each task beforehand [n, f]. passed: 0 or 1, by task and model [n,
        models]. usd: what it cost [n, models]. models: names. ridge: penalty on each squared weight
        of a feature of standard deviation one; the constant is
            free. In units of one task's information.

    Raises:
        InputError: shapes do not agree, costs are not above zero, or a model always or never
        passes.
    """
    if passed.shape != usd.shape or passed.shape != (len(features), len(models)):
        raise InputError(
            need="outcomes and costs of each task under each model",
            got=f"{passed.shape} and {usd.shape} for {len(features)} tasks, {len(models)} models",
            hint="leave out tasks that some model was not tried on",
        )
    if float(usd.min()) <= 0.0 or passed.mean(0).min() == 0.0 or passed.mean(0).max() == 1.0:
        raise InputError(
            need="costs above zero, and models that sometimes pass and sometimes do not",
            got=f"costs from {usd.min():g}, shares that pass {passed.mean(0).round(3).tolist()}",
            hint="a model that always passes needs no router",
        )
    centre, scale = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-9)
    design = _with_constant((features - centre) / scale)
    penalty = ridge * np.diag([0.0, *[1.0] * features.shape[1]])
    normal = design.T @ design + penalty
    logs = np.linalg.solve(normal, design.T @ np.log(usd))
    chances = np.stack([_logit(design, own, penalty) for own in passed.T])
    return Router(
        models=tuple(models),
        centre=centre,
        scale=scale,
        chances=chances,
        costs=logs.T.astype(np.float64),
    )


def _logit(design: Floats, y: Floats, penalty: Floats) -> Floats:
    def criterion(weights: Floats) -> Point:
        eta = design @ weights
        chance = logistic(eta)
        shrunk = penalty @ weights
        return Point(
            loss=float(np.sum(np.logaddexp(0.0, eta) - y * eta) + 0.5 * weights @ shrunk),
            gradient=design.T @ (chance - y) + shrunk,
            curvature=(design * (chance * (1.0 - chance))[:, None]).T @ design + penalty,
        )

    start = np.zeros(len(penalty))
    return minimise(criterion, start, "a larger ridge")


def _with_constant(columns: Floats) -> Floats:
    return np.hstack([np.ones((len(columns), 1)), columns])
