import numpy as np
import pytest

from weft.core.errors import InfeasibleError, InputError
from weft.tokens.macro import FifoQueue, Service, SharedQueue, exponential, externality, fixed

RATES = np.array([0.4, 0.7])


def lindley(rates, draw, jobs, seed):
    """Mean wait in line by W' = max(0, W + S - A), with S drawn by kind."""
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1.0 / rates.sum(), jobs)
    kinds = rng.choice(len(rates), jobs, p=rates / rates.sum())
    steps = np.concatenate([[0.0], (draw(rng, kinds) - gaps)[:-1]])
    walk = np.cumsum(steps)
    return float((walk - np.minimum.accumulate(np.minimum(walk, 0.0))).mean())


def test_waits_are_those_of_a_simulation():
    services = (exponential(0.5), fixed(0.6))
    rates = np.array([0.6, 0.5])

    def draw(rng, kinds):
        return np.where(kinds == 0, rng.exponential(0.5, len(kinds)), 0.6)

    found = FifoQueue(services).response(rates).delays_s - np.array([0.5, 0.6])
    runs = [lindley(rates, draw, 400_000, seed) for seed in range(4)]
    assert found == pytest.approx(np.mean(runs), rel=0.02)


@pytest.mark.parametrize("queue", [FifoQueue, SharedQueue])
def test_slopes_are_finite_differences(queue):
    server = queue((exponential(0.5), Service(mean_s=0.8, square_s2=3.0)))
    rise = np.eye(2) * 1e-6
    columns = [
        (server.response(RATES + e).delays_s - server.response(RATES - e).delays_s) / 2e-6
        for e in rise
    ]
    assert server.response(RATES).slopes == pytest.approx(np.column_stack(columns), rel=1e-6)


@pytest.mark.parametrize("queue", [FifoQueue, SharedQueue])
def test_the_toll_of_one_kind_without_memory_is_that_of_the_textbook(queue):
    # M/M/1, in any order that does not look at sizes: T = 1 / (mu - r), toll = c r / (mu - r)^2.
    toll = externality(
        queue((exponential(0.5),)).response(np.array([1.5])), np.array([1.5]), np.array([0.2])
    )
    assert toll == pytest.approx([0.2 * 1.5 / 0.25])


def test_measured_times_have_their_own_moments():
    assert Service.of([1.0, 3.0]) == Service(mean_s=2.0, square_s2=5.0)


def test_what_cannot_be_is_refused():
    server = FifoQueue((exponential(0.5),))
    with pytest.raises(InfeasibleError, match="1 times what it can do"):
        server.response(np.array([2.0]))
    with pytest.raises(InputError, match="1 rates of at least zero"):
        server.response(np.array([-1.0]))
    with pytest.raises(InputError, match="mean square"):
        Service(mean_s=1.0, square_s2=0.5)
