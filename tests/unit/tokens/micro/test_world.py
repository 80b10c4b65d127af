import numpy as np
import pytest

from weft.tokens.micro import CobbDouglas, World, simulated


def test_the_share_that_passes_is_that_of_many_attempts_with_those_tokens():
    theta, arms = np.array([0.5]), np.array([[0.0]])
    world = World(family=CobbDouglas(), theta=theta, arms=arms, reaction=0.0, harm=1.5, level=0.7)
    own = world.trials(40_000, 1, np.random.default_rng(0))
    assert world.passes([1000.0]) == pytest.approx(own.y.mean(), abs=4 * 0.5 / 200)


def test_seeds_reproduce():
    a, b, c = (
        simulated(tasks=5, attempts=2, elasticity=0.5, difficulty=1.0, seed=s).trials.logs
        for s in (1, 1, 2)
    )
    assert (a == b).all() and not (a == c).all()
