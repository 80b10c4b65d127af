"""Cobb and Douglas: a product of powers; every pair substitutes with elasticity one.

    f = sum of beta_i l_i

Source: Cobb and Douglas, American Economic Review 1928.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weft.tokens.micro.estimate import Floats

__all__ = ["CobbDouglas"]


@dataclass(frozen=True, slots=True)
class CobbDouglas:
    """A product of powers, of any factors.

    Example:
        >>> CobbDouglas().parameters(("reasoning", "tool"))
        ('elasticity of reasoning', 'elasticity of tool')
    """

    @property
    def name(self) -> str:
        """As it is called in text."""
        return "Cobb-Douglas"

    def parameters(self, factors: tuple[str, ...]) -> tuple[str, ...]:
        """One elasticity a factor."""
        return tuple(f"elasticity of {factor}" for factor in factors)

    def starts(self, factors: tuple[str, ...]) -> tuple[Floats, ...]:
        """Nothing matters."""
        return (np.zeros(len(factors)),)

    def index(self, theta: Floats, logs: Floats) -> Floats:
        """Linear."""
        return logs @ theta

    def elasticities(self, theta: Floats, logs: Floats) -> Floats:
        """The parameters, everywhere."""
        return np.broadcast_to(theta, logs.shape).astype(np.float64)

    def rho(self, theta: Floats, at: Floats) -> Floats:
        """Zero, by construction."""
        return np.zeros(int(len(theta) > 1))

    def substitutions(self, factors: tuple[str, ...]) -> tuple[str, ...]:
        """The same for all pairs."""
        return (" and ".join(factors),) if len(factors) > 1 else ()

    def returns(self, theta: Floats) -> float:
        """Sum of the elasticities."""
        return float(theta.sum())

    def log_unit_cost(self, theta: Floats, log_prices: Floats) -> float:
        """Sum of s (ln p - ln s), with cost shares s."""
        shares = self.cost_shares(theta, log_prices)
        return float(shares @ (log_prices - np.log(shares)))

    def cost_shares(self, theta: Floats, log_prices: Floats) -> Floats:
        """Elasticities over their sum, whatever the prices."""
        return theta / theta.sum()
