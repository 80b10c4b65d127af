"""The capacity programme against a search over paces that knows no solver."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import InfeasibleError, InputError
from weft.tokens.serving import (
    Limits,
    Request,
    ResourceTime,
    StepTimes,
    capacity,
    demand_of,
)

SMALL = st.floats(1e-9, 1e-6)


@st.composite
def servers(draw):
    resources = tuple(
        ResourceTime(
            f"r{number}",
            fixed_s=draw(st.floats(1e-3, 2e-2)),
            token_s=draw(st.floats(1e-6, 1e-4)),
            sequence_s=draw(st.floats(0, 1e-5)),
            pair_s=draw(st.floats(0, 1e-8)),
            context_token_s=draw(st.floats(0, 1e-7)),
        )
        for number in range(draw(st.integers(1, 3)))
    )
    return StepTimes(resources, draw(st.integers(2_000, 500_000)))


requests = st.lists(
    st.builds(
        lambda fresh, cached, output: Request(
            arrival_s=0.0, input_tokens=fresh + cached, cached_tokens=cached, output_tokens=output
        ),
        st.integers(1, 5_000),
        st.integers(0, 3_000),
        st.integers(1, 800),
    ),
    min_size=1,
    max_size=6,
)


def searched(times: StepTimes, asked, limits: Limits) -> float:
    """Server seconds of a mean request, by bisection over the pace, written out anew."""
    mean = {
        name: np.mean([value(r) for r in asked])
        for name, value in {
            "tokens": lambda r: r.fresh + r.output_tokens,
            "output": lambda r: r.output_tokens,
            "fresh": lambda r: r.fresh,
            "context": lambda r: (
                r.output_tokens * (r.fresh + r.cached_tokens + r.output_tokens / 2)
            ),
            "before": lambda r: r.cached_tokens,
            "prompt": lambda r: r.fresh * (r.cached_tokens + r.fresh / 2),
        }.items()
    }

    def least(pace: float) -> float:
        rooms = (
            mean["output"] / (pace * limits.sequences),
            mean["context"] / (pace * times.cache_tokens),
            mean["fresh"] / (pace * limits.step_tokens),
        )
        works = [
            (
                r.token_s * mean["tokens"]
                + r.sequence_s * mean["output"]
                + r.pair_s * (mean["prompt"] + mean["context"])
                + r.context_token_s * (mean["before"] + mean["context"])
            )
            / (1 - pace * r.fixed_s)
            for r in times.resources
        ]
        return max(*rooms, *works)

    # Rooms fall and works rise with the pace: their maximum has one valley.
    low = 1 / limits.token_s
    high = 1 / max(r.fixed_s for r in times.resources) * (1 - 1e-12)
    for _ in range(300):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, b) if least(a) < least(b) else (a, high)
    return least((low + high) / 2)


@given(servers(), requests, st.sampled_from([Limits(), Limits(sequences=8), Limits(token_s=0.05)]))
@settings(max_examples=60, deadline=None)
def test_the_fewest_servers_are_those_of_a_search(times, asked, limits):
    found = capacity(times, demand_of(asked), limits)
    assert found.server_s == pytest.approx(searched(times, asked, limits), rel=1e-6)
    assert math.isclose(sum(share for _, share in found.binding), 1.0, rel_tol=1e-6)


@given(servers(), requests, st.sampled_from(["fresh", "cached", "output"]))
@settings(max_examples=60, deadline=None)
def test_prices_are_what_one_more_token_costs(times, asked, name):
    demand = demand_of(asked)
    count = getattr(demand, name)
    price = getattr(capacity(times, demand), f"{name}_s")
    if not count:
        # Of none there is no more in proportion: one in each request.
        few = 1e-6 * demand.output
        some = replace(
            demand, cached=few, fresh_cached=few * demand.fresh, output_cached=few * demand.output
        )
        more = capacity(times, some).server_s - capacity(times, demand).server_s
        assert price == pytest.approx(more / few, rel=1e-3)
        return
    step = 1e-5
    more = capacity(times, demand.scaled(**{name: 1 + step})).server_s
    less = capacity(times, demand.scaled(**{name: 1 - step})).server_s
    # At a kink, where what binds changes, the price is between what one less and one more cost.
    at = capacity(times, demand).server_s
    ends = sorted(((at - less) / step / count, (more - at) / step / count))
    slack = 1e-3 * abs(ends[1]) + 1e-15
    assert ends[0] - slack <= price <= ends[1] + slack


@given(servers(), requests, st.sampled_from([Limits(), Limits(sequences=8), Limits(token_s=0.05)]))
@settings(max_examples=60, deadline=None)
def test_parts_add_up_to_the_cost_and_derivatives_to_more(times, asked, limits):
    demand = demand_of(asked)
    found = capacity(times, demand, limits)
    names = ("fresh", "cached", "output")
    borne = sum(getattr(demand, name) * getattr(found, f"{name}_part_s") for name in names)
    grown = sum(getattr(demand, name) * getattr(found, f"{name}_s") for name in names)
    assert borne == pytest.approx(found.server_s, rel=1e-9)
    assert grown >= found.server_s * (1 - 1e-9)
    for name in names:
        own, half = getattr(found, f"{name}_s"), getattr(found, f"{name}_part_s")
        assert own * (1 + 1e-9) >= half >= own / 2 * (1 - 1e-9)


def test_kept_tokens_cost_where_memory_limits():
    server = StepTimes((ResourceTime("memory", fixed_s=1e-3, token_s=1e-6),), 10_000)
    demand = demand_of([Request(arrival_s=0, input_tokens=5_000, output_tokens=500)])
    held = capacity(server, demand).held_s
    # Of ten thousand places, one that is taken is a ten-thousandth of what memory is worth.
    share = dict(capacity(server, demand).binding)["room for keys and values"]
    assert held == pytest.approx(share / 10_000, rel=1e-6) and held > 0.0
    assert capacity(replace(server, cache_tokens=10**9), demand).held_s == 0.0


def test_a_step_slower_than_a_token_may_take_is_refused():
    server = StepTimes((ResourceTime("all", fixed_s=0.2),), 1_000)
    with pytest.raises(InfeasibleError, match=r"0\.2 s for a step"):
        capacity(server, demand_of([Request(arrival_s=0, input_tokens=1, output_tokens=1)]))


def test_no_requests_are_no_demand():
    with pytest.raises(InputError, match="0 requests"):
        demand_of([])


@pytest.mark.parametrize("wrong", [{"token_s": 0.0}, {"sequences": 0}, {"step_tokens": 0}])
def test_limits_that_nothing_keeps_are_refused(wrong):
    with pytest.raises(InputError, match="above 0"):
        Limits(**wrong)
