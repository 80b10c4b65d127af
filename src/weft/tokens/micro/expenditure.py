"""What a quality costs at least, and what is bought for it.

    C(Z, p) = min p x   such that   outcome(x) >= Z

For a family that is the same at every scale the index that Z asks for, f, costs

    ln C = f / nu + ln c(p),     x_i = dC / dp_i = C s_i / p_i

with returns nu, unit cost c and cost shares s. C is homogeneous of degree one and concave in
prices. The problem is the one that arXiv 2605.09104 poses for tokens, as transcribed by others; see
docs/explain/production_function.md.

Source: Shephard, Cost and Production Functions, 1953; Diewert, Journal of Political Economy 1971.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from weft.core.errors import InfeasibleError, InputError
from weft.tokens.micro.estimate import Estimate, Floats, Interval
from weft.tokens.micro.families import Priced
from weft.tokens.micro.identification import Link
from weft.tokens.micro.logit import logistic
from weft.tokens.micro.production import Production, require_prices

__all__ = ["Expenditure", "cheapest", "least_cost"]

FARTHEST = 60.0
"""Log odds that are searched for a quality. Derived: chances beyond are 0 or 1 to double
precision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expenditure:
    """The cheapest way to a quality.

    Attributes:
        floor: the quality.
        usd: what it costs [usd].
        tokens: of each factor.
        shares: of the cost, by factor.
        usd_per_outcome: what one unit of quality more costs, at the floor: the shadow price of the
            quality [usd].
        warnings: where it lies beyond what was tried.
    """

    floor: float
    usd: Interval
    tokens: Mapping[str, Interval]
    shares: Mapping[str, float]
    usd_per_outcome: Interval
    warnings: tuple[str, ...]

    def explain(self) -> str:
        """In words."""
        lines = [
            f"an outcome of {self.floor:g} costs {self.usd} usd at least",
            *(
                f"  {name:<11} {own} tokens, {self.shares[name]:.0%} of the cost"
                for name, own in self.tokens.items()
            ),
            f"  one more    {self.usd_per_outcome} usd",
            *(f"  beware      {warning}" for warning in self.warnings),
        ]
        return "\n".join(lines)


def cheapest(
    production: Production, floor: float, prices: Mapping[str, float], model: str = ""
) -> Expenditure:
    """The least cost of a quality, with intervals.

    Args:
        production: fitted, not as an association.
        floor: the outcome that has to be reached.
        prices: by factor [usd / token].
        model: whose level; may be left out for one.

    Raises:
        InputError: a price is missing, the family has no closed form, or an input does not raise
            the outcome.
        InfeasibleError: no input leads to such an outcome.
    """
    production.require_effect("the cost of a quality")
    named = require_prices(production.factors, prices)
    first = _require_priced(production, production.shape.values)
    place, own = production.place_of(model), production.own
    level = _index_of(production, floor)
    parts = production.parameters.joined(level)
    k = len(production.factors)

    def logs(theta: Floats) -> Floats:
        """Logarithms of C, of tokens and of dC/dZ."""
        shape, f = theta[own:-2], theta[-2] - theta[place]
        found, shares = _least(first, shape, f, named, production.centre)
        more = found - math.log(first.returns(shape)) - theta[-1]
        return np.concatenate([[found], found + np.log(shares / named), [more]])

    found = parts.through(logs)
    spans = [found.interval(at, production.level).mapped(math.exp) for at in range(k + 2)]
    shape = production.shape.values
    shares = first.cost_shares(shape, np.log(named) + production.centre)
    return Expenditure(
        floor=floor,
        usd=spans[0],
        tokens=dict(zip(production.factors, spans[1 : k + 1], strict=True)),
        shares=dict(zip(production.factors, map(float, shares), strict=True)),
        usd_per_outcome=spans[-1],
        warnings=_beyond(production, found.values[1 : k + 1]),
    )


def least_cost(
    production: Production, floor: float, prices: Mapping[str, float], model: str = ""
) -> tuple[float, dict[str, float]]:
    """The least cost [usd] and tokens by factor, without intervals; for those who ask often.

    Raises:
        InputError, InfeasibleError: as for `cheapest`.
    """
    production.require_effect("the cost of a quality")
    named = require_prices(production.factors, prices)
    shape = production.shape.values
    family = _require_priced(production, shape)
    f = _reached(production, floor) - production.parameters.values[production.place_of(model)]
    log_cost, shares = _least(family, shape, float(f), named, production.centre)
    tokens = math.exp(log_cost) * shares / named
    return math.exp(log_cost), dict(zip(production.factors, map(float, tokens), strict=True))


def _least(
    family: Priced, shape: Floats, f: float, prices: Floats, centre: Floats
) -> tuple[float, Floats]:
    relative = np.log(prices) + centre
    log_cost = f / family.returns(shape) + family.log_unit_cost(shape, relative)
    return log_cost, family.cost_shares(shape, relative)


def _require_priced(production: Production, shape: Floats) -> Priced:
    family = production.family
    if not isinstance(family, Priced):
        raise InputError(
            need="a family that is the same at every scale",
            got=f"{family.name}, which is a picture of the surroundings of its centre",
            hint="fit CobbDouglas() or Ces() for costs, and translog to test them",
        )
    slopes = family.elasticities(shape, np.zeros((1, len(production.factors))))[0]
    for factor, slope in zip(production.factors, slopes, strict=True):
        if slope <= 0.0:
            raise InputError(
                need="inputs of which more raises the outcome",
                got=f"an elasticity of {slope:.3g} for {factor}",
                hint=f"none of {factor} is bought; fit without it",
            )
    return family


def _reached(production: Production, floor: float) -> float:
    """The index at which the outcome is the floor."""
    if production.link is Link.IDENTITY:
        return floor
    if not 0.0 < floor < (1.0 if production.link is Link.LOGIT else math.inf):
        raise InfeasibleError(
            need="a quality that can be reached: between 0 and 1 for passing, else above 0",
            got=f"{floor:g}",
            options=("ask for a share that passes below 1",),
        )
    if production.link is Link.LOG:
        return math.log(floor)
    if production.controls is None:
        return math.log(floor / (1.0 - floor))
    added = production.controls.rest @ _weights(production)
    low, high = -FARTHEST, FARTHEST
    while high - low > 1e-12 * (1.0 + abs(low)):
        middle = 0.5 * (low + high)
        below = float(logistic(middle + added).mean()) < floor
        low, high = (middle, high) if below else (low, middle)
    return 0.5 * (low + high)


def _weights(production: Production) -> Floats:
    return production.parameters.values[len(production.models) : production.own]


def _index_of(production: Production, floor: float) -> Estimate:
    """The index that reaches the floor, and the logarithm of how the outcome rises there.

    The first solves mean outcome(index, theta) = floor, so its influence is minus that of the mean
    over the slope.
    """
    index, controls = _reached(production, floor), production.controls
    if controls is None:
        eta = np.array([index])
        nothing = np.zeros((len(production.parameters.influence), 2))
        slope = float(production.slope_of_index(eta)[0])
        return Estimate(values=np.array([index, math.log(slope)]), influence=nothing)
    first, own = len(production.models), production.own

    def at_index(theta: Floats, rest: Floats) -> Floats:
        chance = logistic(index + rest @ theta[first:own])
        slope = chance * (1.0 - chance)
        return np.column_stack([chance, slope, slope * (1.0 - 2.0 * chance)])

    found = controls.averaged(production.parameters, at_index)
    slope, bend = found.values[1], found.values[2]
    moved = -found.influence[:, 0] / slope
    slopes = (found.influence[:, 1] + bend * moved) / slope
    return Estimate(
        values=np.array([index, np.log(slope)]), influence=np.column_stack([moved, slopes])
    )


def _beyond(production: Production, log_tokens: Floats) -> tuple[str, ...]:
    low, high = production.tried + production.centre
    outside = [
        f"{math.exp(at):,.3g} of {factor} is beyond what was tried "
        f"({math.exp(a):,.3g} to {math.exp(b):,.3g})"
        for factor, at, a, b in zip(production.factors, log_tokens, low, high, strict=True)
        if not a <= at <= b
    ]
    return tuple(outside)
