"""The search against trying everything, and what it promises whoever runs it."""

from dataclasses import replace
from itertools import islice, product

import numpy as np
import pytest

from tests.programs import transformer
from tests.uneven import KINDS, MIXED, device, machine, sketch
from weft.parallel.mcts.baselines import BASELINES, HOROVOD_BYTES, data_parallel, greedy
from weft.parallel.mcts.cluster import cluster_of
from weft.parallel.mcts.groups import grouped
from weft.parallel.mcts.options import EXTENDED, PUBLISHED, Choice, Method, Options, State
from weft.parallel.mcts.search import CLOSE, Search, baseline, uniform, value_of
from weft.parallel.mcts.simulate import Simulator
from weft.parallel.mcts.sketching import sketched
from weft.parallel.mcts.varying import variations

PAIR = (device("kind0", 2.0), device("kind1", 1.0))
# The first group is worth cutting; the last one has much to synchronise.
SMALL = replace(
    sketch(
        [(0, 8.0), (1, 1.0), (2, 1.0), (3, 0.5)],
        [(3, 1.0), (2, 2.0), (1, 2.0), (0, 16.0)],
        speeds=(2.0, 1.0),
        crossings=[(0, (1, 6), 0.5), (1, (2, 5), 0.5), (2, (3, 4), 0.5), (4, (5,), 0.5)],
        gradients=[(0, 7, 1.0), (1, 6, 2.0), (2, 5, 2.0), (3, 4, 60.0)],
    ),
    devices=PAIR,
)


def problem(methods=PUBLISHED, of=SMALL, on=None):
    cluster = cluster_of(on or machine((PAIR[0], 1), (PAIR[1], 2)), of.devices)
    return Simulator(of, cluster), Options(of, cluster, methods)


def real():
    program = transformer(num_layers=3, batch=16, width=64, slots=("first",))
    of = sketched(grouped(program, KINDS, most=8), KINDS)
    cluster = cluster_of(MIXED, KINDS)
    return Simulator(of, cluster), Options(of, cluster)


def best_of_all(simulator, options):
    return min(
        simulator.run(options.resolved(choices)).step_s
        for choices in product(options.choices, repeat=SMALL.num_groups)
    )


@pytest.mark.parametrize("methods", [PUBLISHED, EXTENDED[:4]], ids=["published", "extended"])
def test_a_search_that_runs_on_has_seen_all(methods):
    simulator, options = problem(methods)
    best, count = best_of_all(simulator, options), len(options.choices)
    states = sum(count**turn for turn in range(SMALL.num_groups + 1))
    found = Search(simulator, options).run(2 * states)
    assert found.simulations == states
    assert found.outcome.step_s == best


@pytest.mark.parametrize("methods", [PUBLISHED, EXTENDED[:4]], ids=["published", "extended"])
def test_a_tenth_of_all_and_a_little_refinement_find_the_best_or_nearly_so(methods):
    simulator, options = problem(methods)
    best, count = best_of_all(simulator, options), len(options.choices)
    search = Search(simulator, options)
    search.run(count**SMALL.num_groups // 10)
    assert search.refine(200).outcome.step_s <= 1.1 * best


def test_the_best_so_far_is_never_worse_than_data_parallel_and_only_gets_better():
    simulator, options = real()
    found = Search(simulator, options).run(60)
    times = [step_s for _, step_s in found.progress]
    assert times == sorted(times, reverse=True)
    assert times[0] == found.baseline_s and times[-1] == found.outcome.step_s
    assert found.speedup >= 1.0


def test_equal_searches_find_equal_decisions():
    first, again = (Search(*real()).run(80) for _ in range(2))
    assert first.decision == again.decision and first.progress == again.progress


def test_it_can_be_stopped_and_go_on():
    asked = iter([False] * 7 + [True] * 100)
    search = Search(*real())
    early = search.run(50, stop=lambda: next(asked))
    assert early.simulations == 7 and early.outcome.fits
    assert search.run(43).progress == Search(*real()).run(50).progress


def test_what_does_not_fit_is_worth_less_than_anything_else():
    simulator, options = problem()
    _, outcome = baseline(simulator, options)
    assert value_of(outcome, outcome.step_s) == 0.0
    assert value_of(outcome, 17 * outcome.step_s) == pytest.approx(2.0)
    assert value_of(replace(outcome, filled=1.1), outcome.step_s) == -1.0


def test_of_what_does_not_fit_what_lacks_least_is_best():
    simulator, options = problem()
    _, outcome = baseline(simulator, options)
    slow, full, fuller = (
        replace(outcome, filled=filled, step_s=step_s)
        for filled, step_s in ((0.9, 9.0), (1.1, 2.0), (1.2, 1.0))
    )
    assert sorted((fuller, slow, full), key=lambda o: o.rank) == [slow, full, fuller]


def test_where_data_parallel_does_not_fit_groups_are_spread():
    heavy = replace(SMALL, lasting_bytes=np.asarray([4.0, 4.0, 4.0, 4.0]))
    small = tuple(device(d.name, speed, memory=80.0) for d, speed in zip(PAIR, (2, 1), strict=True))
    simulator, options = problem(of=heavy, on=machine((small[0], 1), (small[1], 2)))
    choices, outcome = baseline(simulator, options)
    assert outcome.fits
    assert {choice.method for choice in choices} == {Method.SPREAD}


def test_what_promises_nothing_is_looked_at_last():
    def first_only(options, state, outcome, steps):
        assert outcome.span_s.size
        return np.eye(len(steps))[0]

    simulator, options = real()
    search = Search(simulator, options, first_only)
    search.run(30)
    assert search.root.visits[0] > search.root.visits[1:].sum()


def test_choices_are_listed_once():
    _, options = problem(EXTENDED)
    decisions = [options.resolved([choice] * SMALL.num_groups) for choice in options.choices]
    assert len(set(decisions)) == len(decisions)


def test_published_choices_are_three_for_each_subset():
    _, options = real()
    published = Options(options.sketch, options.cluster, PUBLISHED)
    assert len(published.choices) == 3 * (2**3 - 1)


def test_the_best_differ_in_what_counts_and_are_nearly_as_good():
    simulator, options = real()
    search = Search(simulator, options)
    search.run(80)
    best = search.best(5)
    outcomes = [outcome for _, outcome in best]
    assert best[0] == (search.found().decision, search.found().outcome)
    assert [o.step_s for o in outcomes] == sorted(o.step_s for o in outcomes)
    assert outcomes[-1].step_s <= CLOSE * outcomes[0].step_s
    # What the lightest of them does alone makes no other decision.
    assert len({decision[:-1] for decision, _ in best}) == len(best) > 1
    assert all(simulator.run(decision).step_s == outcome.step_s for decision, outcome in best)
    assert search.best(1) == best[:1]


def test_groups_that_are_decided_alike_move_together():
    # Whoever moves alone has more to send than it gains; together they take half of the time.
    kinds = (device("kind0", 1.0), device("kind1", 2.0))
    chain = sketch(
        [(0, 1.0), (1, 1.0)],
        [(1, 1.0), (0, 1.0)],
        speeds=(1.0, 2.0),
        crossings=[(0, (1,), 50.0), (2, (3,), 50.0)],
    )
    of = replace(chain, devices=kinds)
    simulator, options = problem((Method.ONE,), of=of, on=machine((kinds[0], 1), (kinds[1], 1)))
    search = Search(simulator, options)
    start = (Choice(Method.ONE, (True, False)),) * 2
    search._best = (start, simulator.run(options.resolved(start)))
    tried = list(islice(variations(lambda: start, options), 2 + 2))
    assert tried[2:] == [start, (Choice(Method.ONE, (False, True)),) * 2]
    assert search.refine(10).outcome.step_s == 4 * 4 / 2


def test_many_groups_of_devices_are_decided_one_by_one():
    many = machine(*[(PAIR[at % 2], 1) for at in range(10)])
    simulator, options = problem(EXTENDED, on=many)
    assert not options.choices
    state, turns = State(), 0
    while steps := options.following(state):
        assert len(steps) <= len(EXTENDED)
        state, turns = steps[-1], turns + 1
    assert turns <= SMALL.num_groups * 11
    assert all(not choice.is_open and choice.groups for choice in state.choices)
    found = Search(simulator, options).run(200)
    assert found.speedup > 1.0


def test_many_groups_of_devices_are_refined_one_at_a_time():
    many = machine(*[(PAIR[at % 2], 1) for at in range(10)])
    simulator, options = problem(EXTENDED, on=many)
    choice = Choice(Method.EVEN, (True, *[False] * 9))
    near = options.near(choice)
    assert len(near) == len(EXTENDED) + 9
    assert all(c.groups and not c.is_open for c in near)
    search = Search(simulator, options)
    rough = search.run(20).outcome.step_s
    assert search.refine(200).outcome.step_s < rough


def test_open_groups_of_devices_take_part():
    choice = Choice(Method.EVEN, (True, None, False))
    assert choice.groups == (0, 1) and choice.is_open
    assert State((choice,)).turn == 0 and State((choice, choice)).turn == 1


def test_spread_groups_go_where_there_is_most_room():
    _, options = problem()
    decision = options.resolved([options.everywhere] * SMALL.num_groups)
    assert all(len(action.members) == 1 for action in decision)
    assert len({action.members for action in decision}) == 3


def test_baselines_run_on_the_same_simulator():
    simulator, options = real()
    times = {name: simulator.run(make(simulator, options)) for name, make in BASELINES.items()}
    assert all(outcome.fits for outcome in times.values())
    assert times["greedy"].step_s <= times["data parallel"].step_s
    joined = Simulator(simulator.sketch, simulator.cluster, HOROVOD_BYTES)
    plain = data_parallel(simulator, options)
    assert joined.run(plain).step_s <= simulator.run(plain).step_s


def test_greedy_takes_choices_that_help():
    simulator, options = problem(EXTENDED)
    found = simulator.run(greedy(simulator, options))
    assert found.step_s < baseline(simulator, options)[1].step_s


def test_the_uniform_prior_treats_steps_alike():
    simulator, options = problem()
    steps = options.following(State())
    shares = uniform(options, State(), baseline(simulator, options)[1], steps)
    assert shares.sum() == pytest.approx(1.0) and len(set(shares.tolist())) == 1
