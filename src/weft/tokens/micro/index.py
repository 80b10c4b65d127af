"""The index that a fit works on: levels and controls, which are linear, and the family's own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weft.tokens.micro.estimate import Floats, jacobian
from weft.tokens.micro.families import Family

__all__ = ["Index"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Index:
    """At parameters theta = (one for each fixed column, then the family's).

    Attributes:
        family: of the inputs.
        logs: of the inputs, centred [n, k].
        fixed: columns of levels and controls [n, m].
    """

    family: Family
    logs: Floats
    fixed: Floats

    def value(self, theta: Floats) -> Floats:
        """[n]."""
        m = self.fixed.shape[1]
        return self.fixed @ theta[:m] + self.family.index(theta[m:], self.logs)

    def slopes(self, theta: Floats) -> Floats:
        """Derivatives by parameters [n, p]."""
        m = self.fixed.shape[1]
        own = jacobian(lambda inner: self.family.index(inner, self.logs), theta[m:])
        return np.hstack([self.fixed, own])

    def starts(self, factors: tuple[str, ...], level: float) -> list[Floats]:
        """Where searches begin, levels at `level`."""
        fixed = np.full(self.fixed.shape[1], level)
        return [np.concatenate([fixed, own]) for own in self.family.starts(factors)]
