import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.tokens.macro.test_batching import TIMES
from weft.core.errors import InfeasibleError
from weft.tokens.macro.engine import Engine, Job
from weft.tokens.macro.orders import CounterOrder
from weft.tokens.serving import Request, StepLoad, serve

jobs = st.lists(
    st.tuples(st.floats(0.0, 2.0), st.integers(1, 3000), st.integers(0, 500), st.integers(1, 60)),
    min_size=1,
    max_size=12,
).map(lambda rows: [Job(*row) for row in sorted(rows)])


def stepped(given, times, most, chunk):
    """The same server, one step and one request at a time."""
    now, ends = 0.0, [0.0] * len(given)
    todo, batch = list(range(len(given))), []  # of the batch: number, prompt done, answer done
    while todo or batch:
        if not batch and given[todo[0]].arrival_s > now:
            now = given[todo[0]].arrival_s
        ahead = sum(given[n].fresh - done for n, done, said in batch if not said)
        while todo and given[todo[0]].arrival_s <= now and len(batch) < most and ahead < chunk:
            held = sum(given[n].place for n, _, _ in batch)
            if held + given[todo[0]].place > times.cache_tokens:
                break
            ahead += given[todo[0]].fresh
            batch.append([todo.pop(0), 0, 0])
        left, tokens, sequences, pairs, reads = chunk, 0, 0, 0.0, 0
        blocked = False
        for own in batch:
            job = given[own[0]]
            if own[2]:
                context = job.fresh + job.cached + own[2]
                tokens, sequences = tokens + 1, sequences + 1
                pairs, reads = pairs + context, reads + context
                own[2] += 1
                continue
            piece = min(job.fresh - own[1], left)
            blocked = blocked or (piece == 0 and job.fresh > 0)
            if blocked:
                continue
            before = job.cached + own[1]
            tokens, left, reads = tokens + piece, left - piece, reads + before
            pairs += piece * (before + (piece + 1) / 2)
            own[1] += piece
            if own[1] == job.fresh:
                sequences, own[2] = sequences + 1, 1
        now += times.seconds(StepLoad(tokens, sequences, pairs, reads))
        for own in [own for own in batch if own[2] == given[own[0]].output]:
            ends[own[0]] = now
            batch.remove(own)
    return ends


@settings(max_examples=60, deadline=None)
@given(given_jobs=jobs, most=st.sampled_from([1, 3, 50]))
def test_many_steps_at_once_are_those_steps_one_by_one(given_jobs, most):
    exact = stepped(given_jobs, TIMES, most, 2048)
    engine = Engine(TIMES, max_sequences=most)
    for job in given_jobs:
        engine.submit(job)
    engine.run()
    assert [job.end_s for job in engine.jobs] == pytest.approx(exact)
    assert engine.present == engine.waiting == engine.batch == 0
    assert sum(engine.served.values()) == sum(job.fresh + job.output for job in given_jobs)
    delays = [job.end_s - job.arrival_s for job in engine.jobs]
    assert all(job.start_s >= job.arrival_s for job in engine.jobs)
    # Little's law, over steps: who comes within one counts from its end on.
    assert engine.area <= sum(delays) + 1e-9


@settings(max_examples=30, deadline=None)
@given(given_jobs=jobs, most=st.sampled_from([2, 50]))
def test_first_come_is_what_is_simulated_elsewhere(given_jobs, most):
    engine = Engine(TIMES, max_sequences=most)
    for job in given_jobs:
        engine.submit(job)
    engine.run()
    requests = [
        Request(
            arrival_s=job.arrival_s,
            input_tokens=job.fresh + job.cached,
            cached_tokens=job.cached,
            output_tokens=job.output,
        )
        for job in given_jobs
    ]
    found = serve(requests, TIMES, max_sequences=most, step_tokens=2048)
    assert [job.end_s for job in engine.jobs] == pytest.approx(list(found.done_s))


def share(order, k):
    """Of the work of ten payers who all have more to do than can be done, that of the one with k
    identities.
    """
    engine = Engine(TIMES, order, max_sequences=32)
    rng = np.random.default_rng(0)
    paths = [("x", f"x{n}") for n in range(k)] + [(f"p{n}", f"p{n}") for n in range(9)]
    for _ in range(120):
        for path in paths:
            for _ in range(1 if path[0] == "x" else 2):
                engine.submit(
                    Job(0.0, int(rng.integers(50, 400)), 0, int(rng.integers(5, 60)), path)
                )
    engine.run(6.0)
    assert all(engine.served[path[0]] > 0 for path in paths)
    return engine.served["x"] / sum(engine.served.values())


@pytest.mark.parametrize("k", [1, 5, 20])
def test_a_payer_has_the_same_share_from_any_number_of_identities(k):
    assert share(CounterOrder(by_payer=True), k) == pytest.approx(0.1, abs=0.015)
    assert share(CounterOrder(by_payer=False), k) == pytest.approx(k / (k + 9), abs=0.05)


def test_a_request_that_never_fits_is_refused():
    with pytest.raises(InfeasibleError, match="room for the 40,001 tokens"):
        Engine(TIMES).submit(Job(0.0, 40_000, 0, 1))
