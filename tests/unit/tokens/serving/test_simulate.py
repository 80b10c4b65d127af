import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import InfeasibleError, InputError
from weft.tokens.macro.engine import Engine, Job
from weft.tokens.serving.simulate import Request, serve, stretch
from weft.tokens.serving.steps import ResourceTime, StepLoad, StepTimes

TIMES = StepTimes(
    (
        ResourceTime("compute", fixed_s=1e-3, token_s=2e-5, pair_s=1e-7),
        ResourceTime("memory", fixed_s=0.010, context_token_s=3e-6, sequence_s=1e-5),
    ),
    cache_tokens=900,
)

requests = st.builds(
    lambda at, fresh, cached, output: Request(
        arrival_s=at, input_tokens=fresh + cached, cached_tokens=cached, output_tokens=output
    ),
    st.floats(0.0, 3.0),
    st.integers(1, 300),
    st.integers(0, 200),
    st.integers(1, 120),
)


def one_step_after_the_other(calls, times, most, chunk):
    """First tokens and ends, by the rules and nothing else."""
    order = sorted(range(len(calls)), key=lambda n: calls[n].arrival_s)
    left = [call.fresh for call in calls]
    given_out = [0] * len(calls)
    first, done = [0.0] * len(calls), [0.0] * len(calls)
    now, there = 0.0, []
    while order or there:
        if not there:
            now = max(now, calls[order[0]].arrival_s)
        while (
            order
            and calls[order[0]].arrival_s <= now
            and len(there) < most
            and sum(left[n] for n in there) < chunk
            and sum(calls[n].tokens for n in (*there, order[0])) <= times.cache_tokens
        ):
            there.append(order.pop(0))
        tokens = sequences = pairs = reads = 0
        got, budget = [], chunk
        for n in there:
            before = calls[n].cached_tokens + calls[n].fresh - left[n]
            if given_out[n]:
                context = calls[n].input_tokens + given_out[n]
                tokens, sequences = tokens + 1, sequences + 1
                pairs, reads = pairs + context, reads + context
                got.append(n)
            elif budget or not left[n]:
                piece = min(left[n], budget)
                tokens, budget, left[n] = tokens + piece, budget - piece, left[n] - piece
                pairs, reads = pairs + piece * (before + (piece + 1) / 2), reads + before
                if not left[n]:
                    sequences += 1
                    got.append(n)
        now += times.seconds(StepLoad(tokens, sequences, pairs, reads))
        for n in got:
            given_out[n] += 1
            first[n] = now if given_out[n] == 1 else first[n]
            if given_out[n] == calls[n].output_tokens:
                done[n] = now
                there.remove(n)
    return first, done


@settings(max_examples=60, deadline=None)
@given(
    calls=st.lists(requests, min_size=1, max_size=12),
    most=st.integers(1, 12),
    chunk=st.integers(1, 400),
)
def test_it_is_the_same_as_one_step_after_the_other(calls, most, chunk):
    found = serve(calls, TIMES, max_sequences=most, step_tokens=chunk)
    first, done = one_step_after_the_other(calls, TIMES, most, chunk)
    assert found.first_token_s == pytest.approx(first)
    assert found.done_s == pytest.approx(done)


@settings(max_examples=30, deadline=None)
@given(calls=st.lists(requests, min_size=1, max_size=20))
def test_every_token_is_computed_once_and_all_time_is_accounted_for(calls):
    found = serve(calls, TIMES)
    fresh = np.array([c.fresh for c in calls], dtype=float)
    before = np.array([c.cached_tokens for c in calls], dtype=float)
    more = np.array([c.output_tokens - 1 for c in calls], dtype=float)
    prompt = fresh + before
    assert found.total.tokens == (fresh + more).sum()
    assert found.total.sequences == (more + 1).sum()
    pairs = fresh * (before + (fresh + 1) / 2) + more * prompt + more * (more + 1) / 2
    assert found.total.pairs == pytest.approx(pairs.sum())
    assert found.batch_s == pytest.approx((found.done_s - found.start_s).sum())
    places = np.array([c.tokens for c in calls])
    assert found.held_token_s == pytest.approx((places * (found.done_s - found.start_s)).sum())
    busy = found.resource_s(TIMES)
    assert max(busy.values()) <= found.busy_s * (1 + 1e-9) <= sum(busy.values()) * (1 + 1e-9)
    assert found.busy_s <= found.elapsed_s * (1 + 1e-9)
    assert (found.first_token_s > found.start_s).all() and (found.start_s >= found.arrival_s).all()


@settings(max_examples=30, deadline=None)
@given(calls=st.lists(requests, min_size=1, max_size=20))
def test_the_engine_of_the_market_agrees(calls):
    engine = Engine(TIMES)
    for own in sorted(calls, key=lambda call: call.arrival_s):
        engine.submit(Job(own.arrival_s, own.fresh, own.cached_tokens, own.output_tokens))
    engine.run()
    # Of two that come at once, each has its own way to say who is first.
    assert serve(calls, TIMES).busy_s == pytest.approx(
        serve(sorted(calls, key=lambda call: call.arrival_s), TIMES).busy_s
    )
    assert np.sort(serve(calls, TIMES).done_s) == pytest.approx(
        np.sort([own.end_s for own in engine.jobs])
    )


def poisson(rate, count, sizes, seed=0):
    rng = np.random.default_rng(seed)
    at = np.cumsum(rng.exponential(1.0 / rate, count))
    return [
        Request(arrival_s=float(a), input_tokens=1, output_tokens=int(o))
        for a, o in zip(at, sizes(rng, count), strict=True)
    ]


def test_a_place_for_one_is_the_queue_of_pollaczek_and_khinchine():
    step, rate = 0.01, 0.5
    calls = poisson(rate, 30_000, lambda rng, n: rng.choice([40, 200], n))
    times = StepTimes((ResourceTime("memory", fixed_s=step),), cache_tokens=10_000)
    found = serve(calls, times, max_sequences=1)
    work = step * np.array([c.output_tokens for c in calls])
    wait = rate * (work**2).mean() / (2.0 * (1.0 - rate * work.mean()))
    assert (found.start_s - found.arrival_s).mean() == pytest.approx(wait, rel=0.05)
    # Exactly: waiting by Lindley's recursion, for these very arrivals.
    end, ends = 0.0, []
    for at, own in zip(found.arrival_s, work, strict=True):
        end = max(end, at) + own
        ends.append(end)
    assert found.done_s == pytest.approx(np.array(ends))


def test_steps_that_take_a_time_for_each_sequence_share_the_server():
    # M/M/1 with processor sharing: 1 / (mu - lambda), whatever the tail; geometric answers.
    token, mean, rate = 1e-4, 100.0, 50.0
    calls = poisson(rate, 15_000, lambda rng, n: rng.geometric(1.0 / mean, n))
    times = StepTimes((ResourceTime("compute", sequence_s=token),), cache_tokens=10**9)
    found = serve(calls, times, max_sequences=10**6)
    assert found.delay_s.mean() == pytest.approx(1.0 / (1.0 / (mean * token) - rate), rel=0.05)


def test_a_full_batch_of_alike_answers_gives_batch_tokens_a_step():
    times = StepTimes((ResourceTime("memory", fixed_s=0.02),), cache_tokens=10**6)
    calls = [Request(arrival_s=0.0, input_tokens=1, output_tokens=50) for _ in range(400)]
    found = serve(calls, times, max_sequences=8)
    assert found.steps == 50 * 400 // 8 and found.busy_s == pytest.approx(0.02 * found.steps)


@settings(max_examples=100, deadline=None)
@given(
    lines=st.lists(st.tuples(st.floats(1e-4, 1.0), st.floats(0.0, 0.1)), min_size=1, max_size=5),
    most=st.integers(1, 200),
    until=st.floats(1e-3, 50.0),
)
def test_a_stretch_is_its_steps(lines, most, until):
    steps, seconds = stretch(lines, most, until)
    each = np.max([[a + b * i for i in range(most)] for a, b in lines], axis=0)
    ends = np.cumsum(each)
    assert seconds == pytest.approx(ends[steps - 1])
    assert steps == most or seconds >= until * (1 - 1e-9)
    assert steps == 1 or ends[steps - 2] < until * (1 + 1e-9)


def test_what_cannot_be_served_is_refused():
    call = Request(arrival_s=0.0, input_tokens=800, output_tokens=200)
    with pytest.raises(InfeasibleError, match="1,000 tokens"):
        serve([call], TIMES)
    with pytest.raises(InputError, match="0 requests"):
        serve([], TIMES)
    for change in ({"cached_tokens": 801}, {"output_tokens": 0}, {"arrival_s": float("nan")}):
        with pytest.raises(InputError, match="no more cached than sent"):
            dataclasses.replace(call, **change)
