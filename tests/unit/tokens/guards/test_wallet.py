import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.tokens import Money, usd
from weft.tokens.budgets import Cap
from weft.tokens.guards import Bucket, derive_limits, earn, settle, take

steps = st.lists(
    st.tuples(
        st.floats(-5.0, 50.0), st.integers(0, 2 * 10**9), st.integers(0, 10**8), st.booleans()
    ),
    max_size=40,
)


@given(steps, st.integers(0, 10**9), st.integers(0, 10**8))
def test_no_window_sees_more_than_burst_and_rate_and_excess(plan, burst, rate):
    bucket = Bucket.full(burst=Money(burst), rate=Money(rate), at=0.0)
    now, clock, flying, paid = 0.0, 0.0, [], []
    for gap, expected, excess, ends in plan:
        clock += gap  # may be set back
        now = max(now, clock)
        bucket, refused = take(bucket, Money(expected), at=clock)
        if refused is None:
            flying.append((expected, expected + excess))
            paid.append((now, expected + excess))
        elif math.isfinite(refused.wait_s):
            assert take(bucket, Money(expected), at=now + refused.wait_s + 1e-6)[1] is None
        if ends and flying:
            own = flying.pop()
            bucket = settle(bucket, Money(own[0]), Money(own[1]), at=clock)
    most = 10**8 * len(paid)
    for first in range(len(paid)):
        for last in range(first, len(paid)):
            spent = sum(own for _, own in paid[first : last + 1])
            seconds = paid[last][0] - paid[first][0]
            assert spent <= burst + rate * seconds + most + 1


def test_what_is_given_back_can_be_spent_again_and_no_more():
    bucket = Bucket.full(burst=usd(1), rate=usd(0), at=0.0)
    bucket, _ = take(bucket, usd(1), at=0.0)
    assert take(bucket, usd("0.1"), at=1e6)[1].wait_s == math.inf
    bucket = settle(bucket, usd(1), usd("0.3"), at=0.0)
    assert bucket.holds == usd("0.7")
    assert settle(bucket, usd(5), usd(0), at=0.0).holds == usd(1)
    assert settle(bucket, usd(0), usd(2), at=0.0).holds == usd("-1.3")


def test_small_flows_are_not_lost_to_rounding():
    bucket = Bucket(burst=usd(1), rate=Money(1), holds=Money(0), at=0.0)
    for n in range(1, 101):
        bucket = bucket.filled(n * 0.3)
    assert bucket.holds == Money(30)


def test_who_sends_little_makes_others_pay_little():
    bucket = Bucket(burst=usd(10), rate=usd(0), holds=usd("0.1"), at=0.0)
    assert take(bucket, usd("0.5"), at=0.0)[1] is not None
    fed = earn(bucket, usd("0.02"), 20.0, at=0.0)
    assert take(fed, usd("0.5"), at=0.0)[1] is None
    with pytest.raises(InputError):
        earn(bucket, usd(1), -1.0, at=0.0)


@given(
    st.integers(1, 1000),
    st.integers(1, 5),
    st.floats(0.01, 1.0),
    st.floats(0.0, 1e5),
    st.floats(0.1, 100.0),
)
def test_stolen_keys_lose_no_more_than_the_share(keys, stolen, share, react_s, peak):
    cap = Cap.of(usd(1000), "daily")
    own = derive_limits(
        cap, keys=keys, stolen=stolen, share=share, react_s=react_s, peak=peak, excess=usd("0.1")
    )
    assert own.lost.nano <= share * cap.most.nano + stolen
    assert own.burst.nano >= 0 and own.rate.nano <= peak * cap.most.nano / 86_400 / keys + 1
    assert own.bucket(0.0).holds == own.burst


@pytest.mark.parametrize(
    ("cap", "wrong"),
    [
        (Cap.of(usd(1)), {}),
        (Cap.of(usd(1), "daily"), {"keys": 0}),
        (Cap.of(usd(1), "daily"), {"share": 0.0}),
        (Cap.of(usd(1), "daily"), {"excess": usd(1)}),
    ],
)
def test_limits_that_cannot_be_are_refused(cap, wrong):
    with pytest.raises(InputError):
        derive_limits(cap, **{"keys": 3, **wrong})


def test_amounts_below_zero_are_refused():
    bucket = Bucket.full(burst=usd(1), rate=usd(1), at=0.0)
    with pytest.raises(InputError):
        take(bucket, usd(-1), at=0.0)
    with pytest.raises(InputError):
        Bucket(burst=usd(1), rate=usd(1), holds=usd(2), at=0.0)
