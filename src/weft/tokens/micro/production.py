"""A fitted production function: what it says of tokens, and how sure it is.

Numbers in dollars need prices, which are given when they are asked for; a fit holds none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from weft.core.errors import InputError
from weft.tokens.micro.controls import Controls
from weft.tokens.micro.estimate import Estimate, Floats, Interval
from weft.tokens.micro.families import Family
from weft.tokens.micro.identification import Link, Mode, unidentified
from weft.tokens.micro.logit import logistic

__all__ = ["Production"]

UNTOLD = 20.0
"""Times that an interval of sigma spans and says nothing. Chosen: from rigid to interchangeable."""
_LINKS = {Link.LOG: "ln outcome", Link.LOGIT: "log odds of passing", Link.IDENTITY: "outcome"}
_RESTS_ON = {
    Mode.EXPERIMENTAL: "arms were drawn at random, and change outcomes through these inputs alone",
    Mode.WITHIN: "what differs between tasks is all that drives tokens and outcomes alike",
    Mode.OBSERVATIONAL: "nothing: this is an association, in which hard tasks take more tokens and "
    "fail more often",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Production:
    """Outcome as a function of inputs.

    Attributes:
        family, link, mode: what was fitted, and how it is identified.
        factors: names of the inputs.
        centre: logarithms of the inputs' geometric means, where shares and levels are [k].
        tried: least and largest logarithms of inputs, relative to the centre [2, k].
        models: whose levels there are, in the order of `parameters`.
        parameters: levels, then what controls weigh, then the family's.
        controls: of a fit with controls; else None.
        first_stage: F of each input, for arms; else empty.
        num_trials, num_tasks, num_arms: that it is from.
        warnings: what a reader has to know before numbers.
        level: of its intervals.
    """

    family: Family
    link: Link
    mode: Mode
    factors: tuple[str, ...]
    centre: Floats
    tried: Floats
    models: tuple[str, ...]
    parameters: Estimate
    controls: Controls | None
    first_stage: tuple[float, ...]
    num_trials: int
    num_tasks: int
    num_arms: int
    warnings: tuple[str, ...]
    level: float = 0.95

    @property
    def is_effect(self) -> bool:
        """Whether it may be read as what tokens do, not only as what goes with them."""
        return self.mode is not Mode.OBSERVATIONAL

    @property
    def shape(self) -> Estimate:
        """The family's own parameters."""
        return Estimate(
            values=self.parameters.values[self.own :],
            influence=self.parameters.influence[:, self.own :],
        )

    @property
    def own(self) -> int:
        """Where the family's parameters begin."""
        return len(self.models) + (0 if self.controls is None else len(self.factors))

    def named(self) -> dict[str, Interval]:
        """Intervals of the family's parameters by name; of an association as well."""
        names = self.family.parameters(self.factors)
        return {name: self.shape.interval(at, self.level) for at, name in enumerate(names)}

    def elasticities(self, at: Mapping[str, float] | None = None) -> dict[str, Interval]:
        """How the index rises with the logarithm of each input; of an association as well.

        Args:
            at: inputs [tokens]; the centre if None.
        """
        logs = self._logs(at)[None, :]
        found = self.shape.through(lambda theta: self.family.elasticities(theta, logs)[0])
        return {f: found.interval(place, self.level) for place, f in enumerate(self.factors)}

    def substitution(self, at: Mapping[str, float] | None = None) -> dict[str, Interval]:
        """Elasticity of substitution of each pair or nest that has one of its own.

        By how many percent their ratio turns where their relative price moves by one percent: 0 for
        inputs that only work together, 1 for Cobb-Douglas, infinite for those that replace each
        other or are best used one alone. Intervals are of rho = 1 - 1 / sigma, and mapped.

        Raises:
            InputError: the fit is observational.
        """
        self.require_effect("an elasticity of substitution")
        logs, names = self._logs(at), self.family.substitutions(self.factors)
        if not names:
            return {}
        found = self.shape.through(lambda theta: self.family.rho(theta, logs))
        return {
            name: found.interval(place, self.level).mapped(_sigma)
            for place, name in enumerate(names)
        }

    def outcome(self, at: Mapping[str, float] | None = None, model: str = "") -> Interval:
        """The outcome at given inputs.

        For log odds with controls, the share that passes if everybody gets these inputs; for logs,
        the geometric mean of outcomes; within tasks, that of a task of the average level, and for
        log odds of one that passes as often as those do that passed and failed both.

        Raises:
            InputError: the fit is observational, or there is no such model or input.
        """
        self.require_effect("an outcome at inputs of one's choosing")
        logs, place = self._logs(at), self.place_of(model)
        found = self._mean(lambda eta, _theta: self.of_index(eta)[:, None], logs, place)
        return found.interval(0, self.level)

    def marginal_product(
        self, factor: str, at: Mapping[str, float] | None = None, model: str = ""
    ) -> Interval:
        """By how much one token more raises the outcome [outcome / token].

        Raises:
            InputError: the fit is observational, or there is no such factor, model or input.
        """
        return self.marginal(factor, at, model).interval(0, self.level)

    def marginal(
        self, factor: str, at: Mapping[str, float] | None = None, model: str = ""
    ) -> Estimate:
        """`marginal_product`, with its influences."""
        self.require_effect(f"a marginal product of {factor}")
        which, logs, place = self._factor(factor), self._logs(at), self.place_of(model)
        tokens = math.exp(logs[which] + self.centre[which])

        def slope(eta: Floats, theta: Floats) -> Floats:
            elasticity = self.family.elasticities(theta[self.own :], logs[None, :])[0, which]
            return (self.slope_of_index(eta) * elasticity / tokens)[:, None]

        return self._mean(slope, logs, place)

    def marginal_per_usd(
        self,
        factor: str,
        prices: Mapping[str, float],
        at: Mapping[str, float] | None = None,
        model: str = "",
    ) -> Interval:
        """By how much one dollar more of a factor raises the outcome [outcome / usd].

        Args:
            factor: which.
            prices: by factor [usd / token].
            at, model: as for `marginal_product`.
        """
        price = float(require_prices(self.factors, prices)[self._factor(factor)])
        return self.marginal_product(factor, at, model).mapped(lambda product: product / price)

    def usd_per_outcome(
        self,
        factor: str,
        prices: Mapping[str, float],
        at: Mapping[str, float] | None = None,
        model: str = "",
    ) -> Interval:
        """What one more pass, or unit of quality, costs by way of a factor [usd].

        The upper end is infinite where the marginal product may be zero; so is all of it where the
        estimate is not above zero.
        """
        return self.marginal_per_usd(factor, prices, at, model).inverted()

    def at_level(self, level: float) -> Production:
        """The same with intervals of another level."""
        return replace(self, level=level)

    def explain(self) -> str:
        """In words: what was found, what may be concluded, and what stands in the way."""
        return _told(self)

    def _mean(
        self, function: Callable[[Floats, Floats], Floats], logs: Floats, model: int
    ) -> Estimate:
        """A function of the index, averaged over controls."""
        own, first = self.own, len(self.models)

        def at_point(theta: Floats) -> Floats:
            return theta[model] + self.family.index(theta[own:], logs[None, :])

        if self.controls is None:
            return self.parameters.through(lambda theta: function(at_point(theta), theta)[0])
        return self.controls.averaged(
            self.parameters,
            lambda theta, rest: function(at_point(theta) + rest @ theta[first:own], theta),
        )

    def of_index(self, eta: Floats) -> Floats:
        """Outcomes, by index."""
        if self.link is Link.LOGIT:
            return logistic(eta)
        return np.exp(eta) if self.link is Link.LOG else eta

    def slope_of_index(self, eta: Floats) -> Floats:
        """By how much outcomes rise with the index."""
        if self.link is Link.IDENTITY:
            return np.ones_like(eta)
        value = self.of_index(eta)
        return value * (1.0 - value) if self.link is Link.LOGIT else value

    def require_effect(self, what: str) -> None:
        """Check that more than an association was fitted.

        Raises:
            InputError: it was not.
        """
        if not self.is_effect:
            raise unidentified(what)

    def _factor(self, factor: str) -> int:
        return _place(factor, self.factors, "a factor of the fit")

    def place_of(self, model: str) -> int:
        """Of a model's level among parameters; of the only one if the name is empty.

        Raises:
            InputError: there is no such model.
        """
        if not model and len(self.models) == 1:
            return 0
        return _place(model, self.models, "a model of the trials")

    def _logs(self, at: Mapping[str, float] | None) -> Floats:
        if at is None:
            return np.zeros(len(self.factors))
        if set(at) != set(self.factors) or min(at.values()) <= 0.0:
            raise InputError(
                need=f"tokens above zero of {', '.join(self.factors)}",
                got=f"{dict(at)}",
                hint="leave `at` out for the geometric means of the trials",
            )
        return np.log([at[factor] for factor in self.factors]) - self.centre


def _sigma(rho: float) -> float:
    return 1.0 / (1.0 - rho) if rho < 1.0 else math.inf


def require_prices(factors: Sequence[str], prices: Mapping[str, float]) -> Floats:
    """Prices in the order of the factors [usd / token].

    Raises:
        InputError: one is missing, or not above zero.
    """
    found = [prices.get(factor, math.nan) for factor in factors]
    if not all(0.0 < price < math.inf for price in found):
        raise InputError(
            need=f"a price above zero for each of {', '.join(factors)}, in dollars a token",
            got=f"{dict(prices)}",
            hint="a price of $10 for a million tokens is 10e-6",
        )
    return np.array(found)


def _place(name: str, names: Sequence[str], what: str) -> int:
    if name not in names:
        raise InputError(
            need=f"{what}: {', '.join(map(repr, names))}",
            got=repr(name),
            hint="names are those of the trials",
        )
    return names.index(name)


def _told(fit: Production) -> str:
    """A fit, a few lines long."""
    arms = f", {fit.num_arms} arms" if fit.mode is Mode.EXPERIMENTAL else ""
    size = f"({fit.num_trials:,} attempts at {fit.num_tasks:,} tasks{arms})"
    lines = [
        f"{_LINKS[fit.link]} by {' and '.join(fit.factors)}: {fit.family.name}, {fit.mode} {size}",
        _row("rests on", _RESTS_ON[fit.mode]),
    ]
    word = "elasticity" if fit.is_effect else "associated"
    for name, found in fit.elasticities().items():
        lines.append(_row(word, f"{name} {found}"))
    if fit.is_effect:
        lines += _effects(fit)
    else:
        lines.append(_row("effects", "none can be told; draw arms, or repeat tasks"))
    if fit.first_stage:
        pairs = zip(fit.factors, fit.first_stage, strict=True)
        lines.append(_row("arms", ", ".join(f"F {f:.3g} for {name}" for name, f in pairs)))
    lines += [_row("beware", warning) for warning in fit.warnings]
    return "\n".join(lines)


def _effects(fit: Production) -> list[str]:
    lines = [_row("sigma", f"{name} {s}{_reading(s)}") for name, s in fit.substitution().items()]
    model = fit.models[0]
    at = " and ".join(
        f"{math.exp(float(c)):,.4g} of {name}"
        for c, name in zip(fit.centre, fit.factors, strict=True)
    )
    # Conditional on how many passed, nothing is known of tasks that always pass or never do.
    some = ", of tasks that passed and failed both"
    some = some if fit.mode is Mode.WITHIN and fit.link is Link.LOGIT else ""
    lines.append(_row("outcome", f"{fit.outcome(model=model)} at {at}{some}"))
    for name in fit.factors:
        product = fit.marginal_product(name, model=model).mapped(lambda each: 1000.0 * each)
        unclear = " (not told from none)" if 0.0 in product else ""
        lines.append(_row("1,000 more", f"{name} {product}{unclear}, by the slope there{some}"))
    return lines


def _reading(sigma: Interval) -> str:
    low, high = sigma.low, sigma.high
    if low == high:
        return ", by construction"
    if high > UNTOLD * max(low, 0.0):
        return ", which is to say nothing: the arms move the inputs too much alike"
    if low > 1.0:
        return ", they replace each other"
    return ", they need each other" if high < 1.0 else ""


def _row(label: str, text: str) -> str:
    return f"  {label:<11} {text}"
