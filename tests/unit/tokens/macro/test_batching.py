import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import InfeasibleError, InputError
from weft.tokens.macro import BatchServer, FifoQueue, Kind, SharedQueue, exponential
from weft.tokens.serving import ResourceTime, StepLoad, StepTimes

TIMES = StepTimes(
    (
        ResourceTime("compute", fixed_s=1e-3, token_s=2e-5, pair_s=1e-9),
        ResourceTime("memory", fixed_s=0.010, context_token_s=1e-8, sequence_s=1e-5),
    ),
    40_000,
)
SIZES = (
    Kind(fresh=1000, output=200),
    Kind(fresh=300, cached=2000, output=50),
    Kind(fresh=3000, output=400),
)


@settings(max_examples=15, deadline=None)
@given(
    rates=st.lists(st.floats(0.01, 10.0), min_size=3, max_size=3),
    load=st.floats(0.05, 0.97),
    most=st.sampled_from([3, 16, 4096]),
)
def test_slopes_are_finite_differences(rates, load, most):
    server = BatchServer(TIMES, SIZES, most)
    rates = np.array(rates)
    for _ in range(40):  # the load is not quite linear, since the mix of contexts is in it
        rates = rates * (load / server.load(rates)) ** 0.5
    steps = np.diag(1e-5 * rates)
    columns = [
        (server.response(rates + e).delays_s - server.response(rates - e).delays_s) / (2 * e.sum())
        for e in steps
    ]
    found = server.response(rates).slopes
    assert found == pytest.approx(np.column_stack(columns), rel=1e-3, abs=1e-4 * found.max())


def test_a_server_whose_steps_take_a_time_for_each_token_shares_equally():
    # M/G/1 with processor sharing, but for half of the step that a request finds going on.
    times = StepTimes((ResourceTime("compute", token_s=1e-4),), 10**7)
    server = BatchServer(times, (Kind(fresh=0, output=2000), Kind(fresh=0, output=1000)))
    rates = np.array([2.0, 3.0])
    queue = SharedQueue((exponential(0.2), exponential(0.1)))
    own, exact = server.response(rates), queue.response(rates)
    assert own.delays_s == pytest.approx(exact.delays_s, rel=2e-3)
    assert own.slopes == pytest.approx(exact.slopes, rel=1e-2)
    taken = server.occupancy(rates)
    assert (taken.batch, taken.waiting) == (pytest.approx(0.7 / 0.3), 0.0)
    assert taken.variance == pytest.approx(0.7 / 0.3**2)


def test_a_server_with_room_for_one_is_a_queue_without_memory():
    # A batch of one: M/M/1, when steps are short.
    times = StepTimes((ResourceTime("memory", fixed_s=1e-4),), 10**7)
    server = BatchServer(times, (Kind(fresh=0, output=2000),), 1)
    exact = FifoQueue((exponential(0.2),)).response(np.array([4.0]))
    own = server.response(np.array([4.0]))
    assert own.delays_s == pytest.approx(exact.delays_s, rel=1e-3)
    assert own.slopes == pytest.approx(exact.slopes, rel=1e-3)


def test_steps_that_take_the_same_time_however_full_cost_nobody_anything():
    times = StepTimes((ResourceTime("memory", fixed_s=0.01),), 10**7)
    found = BatchServer(times, (Kind(fresh=0, output=100),)).response(np.array([20.0]))
    assert found.delays_s == pytest.approx([1.005], rel=1e-6)
    assert found.slopes == pytest.approx(0.0, abs=1e-9)


def step_seconds(rate, kind, times, in_batch):
    """With as many prompts as come while it goes on, number by number."""
    context = kind.fresh + kind.cached + kind.output / 2
    pairs = kind.fresh * (kind.cached + (kind.fresh + 1) / 2)
    each = [
        times.seconds(
            StepLoad(
                in_batch + j * kind.fresh,
                in_batch,
                in_batch * context + j * pairs,
                in_batch * context + j * kind.cached,
            )
        )
        for j in range(60)
    ]
    step = each[0]
    for _ in range(200):
        chances = [
            math.exp(-rate * step) * (rate * step) ** j / math.factorial(j) for j in range(60)
        ]
        step = sum(chance * own for chance, own in zip(chances, each, strict=True))
    return step


def birth_and_death(rate, kind, times, most, states=3000):
    """One kind, by the balance of flows of a chain that is written down state by state."""
    step = [0.0, *(step_seconds(rate, kind, times, n) for n in range(1, most + 1))]
    chance = np.zeros(states)
    chance[0] = 1.0
    for n in range(1, states):
        in_batch = min(n, most)
        chance[n] = chance[n - 1] * rate * kind.output * step[in_batch] / in_batch
        if n % 100 == 0:
            chance /= chance.sum()
    return chance / chance.sum()


@pytest.mark.parametrize("share", [0.3, 0.7, 0.9])
def test_one_kind_is_the_chain_of_its_states(share):
    kind = SIZES[0]
    server = BatchServer(TIMES, (kind,), 24)
    rate = share / server.load(np.array([1.0]))
    chance = birth_and_death(rate, kind, TIMES, 24)
    states = np.arange(len(chance))
    found = server.occupancy(np.array([rate]))
    assert found.batch == pytest.approx(chance @ np.minimum(states, 24))
    assert found.waiting == pytest.approx(chance @ np.maximum(states - 24, 0), abs=1e-9)
    assert found.variance == pytest.approx(chance @ states**2 - (chance @ states) ** 2)


def test_a_kind_that_nobody_sends_changes_nothing():
    rates = np.array([1.0, 2.0, 0.0])
    wide, narrow = BatchServer(TIMES, SIZES), BatchServer(TIMES, SIZES[:2])
    found = wide.response(rates)
    assert found.delays_s[:2] == pytest.approx(narrow.response(rates[:2]).delays_s)
    assert found.slopes[:2, :2] == pytest.approx(narrow.response(rates[:2]).slopes)


def test_what_cannot_be_is_refused():
    server = BatchServer(TIMES, SIZES)
    with pytest.raises(InfeasibleError, match="times what it can do"):
        server.response(np.array([10.0, 10.0, 10.0]))
    with pytest.raises(InputError, match="rates of zero"):
        server.response(np.zeros(3))
    with pytest.raises(InfeasibleError, match="room for the 50,100 tokens"):
        BatchServer(TIMES, (Kind(fresh=50_000, output=100),))
    with pytest.raises(InputError, match="an answer of at least one"):
        Kind(fresh=1, output=0)
    assert server.load(np.zeros(3)) == 0.0
