"""Over many worlds; `python -m benchmarks.tokens.fitting` takes more of both."""

import numpy as np
import pytest

from benchmarks.tokens.worlds import Case, band, tally
from weft.tokens.micro import Ces, CobbDouglas, Link, Mode, World

ARMS = np.log(2.0) * np.array([[-1.5], [-0.5], [0.5], [1.5]])


def case(mode, **world):
    own = World(family=CobbDouglas(), theta=np.array([0.5]), arms=ARMS, harm=2.0, **world)
    return Case(
        name="",
        world=own,
        mode=mode,
        asked=lambda fit: fit.elasticities()["tokens"],
        truth=0.5,
    )


@pytest.mark.slow
@pytest.mark.parametrize("mode", [Mode.EXPERIMENTAL, Mode.WITHIN])
@pytest.mark.parametrize("link", [Link.LOG, Link.LOGIT])
def test_intervals_hold_the_truth_as_often_as_they_say(mode, link):
    found = tally(case(mode, link=link, noise=0.3 if link is Link.LOG else 0.0), 300)
    low, high = band(300, 4)
    assert low <= found.covered <= high
    assert found.bias_in_errors < 3.5


@pytest.mark.slow
def test_intervals_of_substitution_hold_the_truth_as_often_as_they_say():
    grid = np.array([[a, b] for a in (-1.0, 0.0, 1.0) for b in (-1.0, 0.0, 1.0)])
    world = World(
        family=Ces(),
        theta=np.array([0.8, -1.0, 0.3]),
        arms=grid,
        link=Link.LOG,
        harm=0.6,
        noise=0.3,
    )
    own = Case(
        name="",
        world=world,
        mode=Mode.EXPERIMENTAL,
        asked=lambda fit: fit.named()["rho of a and b"],
        truth=-1.0,
        tasks=300,
    )
    found = tally(own, 150)
    low, high = band(150, 1)
    assert low <= found.covered <= high


def test_a_regression_has_the_wrong_sign_in_every_world():
    assert tally(case(Mode.OBSERVATIONAL), 20).wrong == 1.0
