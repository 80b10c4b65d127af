"""Worlds in which the truth is known: hard tasks take more tokens and fail more often.

    ln tokens = arm + reaction * d + noise              d = difficulty of the task and of the
    attempt index     = level + f(ln tokens) - harm * d         outcome by the link

An ordinary regression of outcomes on tokens sees d through both, and has the wrong sign where harm
is large. The arm is drawn at random for each attempt.

Source of the problem: Marschak and Andrews, Econometrica 1944 (transmission bias).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weft.tokens.micro.estimate import Floats
from weft.tokens.micro.families import CobbDouglas, Family
from weft.tokens.micro.identification import Link
from weft.tokens.micro.logit import logistic
from weft.tokens.micro.trials import Trials

__all__ = ["World", "simulated"]

QUADRATURE = 40
"""Points over difficulty. Derived: exact for polynomials of degree 79; the logistic of a normal
then has 10 digits."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class World:
    """How outcomes come about.

    Attributes:
        family, theta: the index of inputs, relative to 1,000 tokens of each.
        arms: logarithms of inputs relative to that, by arm [arms, k].
        link: of the index.
        level: of the index.
        reaction: by how much difficulty raises ln tokens.
        harm: by how much difficulty lowers the index.
        noise: of ln tokens, apart from difficulty; of the outcome, for links log and identity.
        restless: standard deviation of an attempt's own difficulty beside its task's, which has 1.
    """

    family: Family
    theta: Floats
    arms: Floats
    link: Link = Link.LOGIT
    level: float = 0.0
    reaction: float = 0.5
    harm: float = 1.0
    noise: float = 0.0
    restless: float = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs."""
        k = self.arms.shape[1]
        return ("tokens",) if k == 1 else tuple("abcdefgh"[:k])

    def trials(self, tasks: int, attempts: int, rng: np.random.Generator) -> Trials:
        """Attempts at new tasks, each under an arm of its own."""
        count, k = tasks * attempts, self.arms.shape[1]
        task = np.repeat(np.arange(tasks), attempts)
        hard = rng.standard_normal(tasks)[task] + self.restless * rng.standard_normal(count)
        arm = rng.integers(len(self.arms), size=count)
        own = self.noise * rng.standard_normal((count, k))
        logs = self.arms[arm] + self.reaction * hard[:, None] + own
        index = self.level + self.family.index(self.theta, logs) - self.harm * hard
        if self.link is Link.LOGIT:
            y = (rng.random(count) < logistic(index)).astype(np.float64)
        else:
            index = index + self.noise * rng.standard_normal(count)
            y = np.exp(index) if self.link is Link.LOG else index
        tokens = 1000.0 * np.exp(logs)
        return Trials(
            inputs={name: tokens[:, place] for place, name in enumerate(self.names)},
            outcome=y,
            task=[str(number) for number in task],
            arm=[f"arm {number}" for number in arm],
        )

    def passes(self, tokens: Sequence[float]) -> float:
        """Of log odds: the share that passes if everybody gets these inputs [tokens]."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(QUADRATURE)
        hard = nodes * np.hypot(1.0, self.restless)
        logs = np.log(np.asarray(tokens, dtype=np.float64) / 1000.0)[None, :]
        index = self.level + self.family.index(self.theta, logs) - self.harm * hard
        return float(weights @ logistic(index) / weights.sum())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """A world and trials in it."""

    world: World
    trials: Trials


def simulated(
    *, tasks: int, attempts: int, elasticity: float, difficulty: float, seed: int
) -> Drawn:
    """Attempts under four arms, each with twice the tokens of the one before.

    Args:
        tasks, attempts: how many, and at each.
        elasticity: of the odds of passing.
        difficulty: by how much a task that is harder by a standard deviation lowers log odds; it
            takes 65 % more tokens.
        seed: the same gives the same.

    Example:
        >>> drawn = simulated(tasks=3, attempts=2, elasticity=0.5, difficulty=1.0, seed=0)
        >>> len(drawn.trials), round(drawn.world.passes([1000.0]), 2)
        (6, 0.5)
    """
    world = World(
        family=CobbDouglas(),
        theta=np.array([elasticity]),
        arms=np.log(2.0) * np.array([[-1.5], [-0.5], [0.5], [1.5]]),
        harm=difficulty,
    )
    return Drawn(world=world, trials=world.trials(tasks, attempts, np.random.default_rng(seed)))
