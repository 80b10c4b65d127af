"""Translog: a second-order picture of any production function around the centre.

    f = sum of beta_i l_i + 1/2 sum of gamma_ij l_i l_j

It nests Cobb-Douglas (gamma of zero) and, to second order, CES; it tests them. It is local: far
from the centre it may bend the wrong way.

Source: Christensen, Jorgenson and Lau, Review of Economics and Statistics 1973.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement

import numpy as np

from weft.tokens.micro.estimate import Floats

__all__ = ["Translog"]


@dataclass(frozen=True, slots=True)
class Translog:
    """Of any factors; with one, a curve of which the elasticity changes.

    Example:
        >>> Translog().parameters(("tokens",))
        ('elasticity of tokens', 'bend of tokens')
    """

    @property
    def name(self) -> str:
        """As it is called in text."""
        return "translog"

    def parameters(self, factors: tuple[str, ...]) -> tuple[str, ...]:
        """Elasticities at the centre, then how they bend."""
        pairs = combinations_with_replacement(factors, 2)
        bends = (f"bend of {a}" if a == b else f"bend of {a} with {b}" for a, b in pairs)
        return (*(f"elasticity of {factor}" for factor in factors), *bends)

    def starts(self, factors: tuple[str, ...]) -> tuple[Floats, ...]:
        """Nothing matters."""
        return (np.zeros(len(self.parameters(factors))),)

    def index(self, theta: Floats, logs: Floats) -> Floats:
        """Linear in the parameters."""
        slope, bend = _split(theta, logs.shape[1])
        return logs @ slope + 0.5 * np.einsum("ni,ij,nj->n", logs, bend, logs)

    def elasticities(self, theta: Floats, logs: Floats) -> Floats:
        """Linear in the inputs."""
        slope, bend = _split(theta, logs.shape[1])
        return slope + logs @ bend

    def rho(self, theta: Floats, at: Floats) -> Floats:
        """Of each pair along its isoquant, the others held; by Hicks's elasticity.

        sigma is d ln(x1 / x2) over d ln(f2 / f1) at dl = (e2, -e1), along which f stays. Above 1
        the isoquant bends outward; NaN where an input does harm.
        """
        slope, bend = _split(theta, len(at))
        e = slope + bend @ at
        return np.array([_rho(e[[i, j]], bend[np.ix_([i, j], [i, j])]) for i, j in _pairs(len(at))])

    def substitutions(self, factors: tuple[str, ...]) -> tuple[str, ...]:
        """One a pair."""
        return tuple(f"{factors[i]} and {factors[j]}" for i, j in _pairs(len(factors)))


def _pairs(count: int) -> list[tuple[int, int]]:
    return list(combinations(range(count), 2))


def _rho(e: Floats, bend: Floats) -> float:
    if min(e) <= 0.0:
        return np.nan
    turned = (bend[0, 0] * e[1] - bend[0, 1] * e[0]) / e[0]
    turned -= (bend[0, 1] * e[1] - bend[1, 1] * e[0]) / e[1]
    return float(turned / e.sum())


def _split(theta: Floats, factors: int) -> tuple[Floats, Floats]:
    bend = np.zeros((factors, factors))
    upper = np.triu_indices(factors)
    bend[upper] = theta[factors:]
    return theta[:factors], bend + np.triu(bend, 1).T
