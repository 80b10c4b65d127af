"""What a production function has to say: its index, elasticities and substitution.

The index f is the logarithm of output for outcomes above zero, and log odds for those that pass or
do not, up to a level. Inputs come as logarithms relative to a centre (their geometric means), where
f is zero: shares are shares at the centre.

Source of the normalisation: Klump and de La Grandville, American Economic Review 2000.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from weft.tokens.micro.estimate import Floats

__all__ = ["Family", "Priced"]


class Family(Protocol):
    """A shape of production; parameters are a vector theta [p], inputs logarithms [n, k]."""

    @property
    def name(self) -> str:
        """As it is called in text."""
        ...

    def parameters(self, factors: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the parameters.

        Raises:
            InputError: the family is of other factors.
        """
        ...

    def starts(self, factors: tuple[str, ...]) -> tuple[Floats, ...]:
        """Where searches for parameters begin, tried in this order until one ends."""
        ...

    def index(self, theta: Floats, logs: Floats) -> Floats:
        """The index f [n]; zero at the centre."""
        ...

    def elasticities(self, theta: Floats, logs: Floats) -> Floats:
        """Derivatives of f by each logarithm [n, k]."""
        ...

    def rho(self, theta: Floats, at: Floats) -> Floats:
        """Of each pair or nest with a substitution of its own, 1 - 1 / sigma, at one point [k]."""
        ...

    def substitutions(self, factors: tuple[str, ...]) -> tuple[str, ...]:
        """Between whom each of `rho` is; none where there is one factor."""
        ...


@runtime_checkable
class Priced(Protocol):
    """A family that is the same at every scale, so that its expenditure has a closed form."""

    def returns(self, theta: Floats) -> float:
        """Sum of all elasticities: by how much f rises with the logarithm of all inputs."""
        ...

    def log_unit_cost(self, theta: Floats, log_prices: Floats) -> float:
        """Logarithm of what it costs to keep f at zero; of prices relative to the centre [k]."""
        ...

    def cost_shares(self, theta: Floats, log_prices: Floats) -> Floats:
        """Of each factor in the least cost [k]; they sum to 1."""
        ...
