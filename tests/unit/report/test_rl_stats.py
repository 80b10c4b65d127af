"""Numbers of runs, against closed forms, draws and SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from tests.unit.report.rl_known import write_run
from weft.report.rl_runs import read_runs
from weft.report.rl_stats import Estimate, curve, difference, estimate, grouped


def groups_of(tmp_path, *runs):
    folders = [write_run(tmp_path / str(n), **run) for n, run in enumerate(runs)]
    return grouped(read_runs(folders))


def summary_of(tmp_path, rewards):
    ((summary,),) = (group.summaries for group in groups_of(tmp_path, {"rewards": rewards}))
    return summary


@pytest.mark.parametrize("count", [2, 3, 5, 10, 30, 31, 40, 100, 1000])
def test_intervals_are_those_of_students_t(count):
    values = np.random.default_rng(count).standard_normal(count)
    found = estimate(values.tolist())
    low, high = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    assert found.mean == pytest.approx(values.mean())
    assert found.half == pytest.approx((high - low) / 2, rel=5e-4)


def test_a_single_run_has_no_interval_and_none_no_estimate():
    assert estimate([0.5, None, math.nan]) == Estimate(mean=0.5, half=None, count=1)
    assert estimate([None, math.inf]) is None
    assert str(estimate([0.12345])) == "0.123"


@pytest.mark.parametrize(
    ("values", "words"),
    [([1.0, 1.0], "1 ± 0"), ([1000.0, 1300.0], "1150 ± 1906"), ([0.93, 0.931], "0.9305 ± 0.0064")],
)
def test_an_estimate_has_the_digits_that_its_interval_is_worth(values, words):
    assert str(estimate(values)) == words


def test_a_difference_is_welchs():
    one, other = [0.9, 0.92, 0.97, 0.91], [0.5, 0.8, 0.61]
    found = difference(one, other)
    low, high = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert found.mean == pytest.approx((low + high) / 2)
    # Freedom is rounded down, which only widens it.
    assert (high - low) / 2 <= found.half < 1.6 * (high - low) / 2
    assert difference(one, [0.5]).half is None and difference(one, []) is None


def test_groups_differ_in_more_than_seeds_and_are_in_order(tmp_path):
    groups = groups_of(
        tmp_path,
        {"staleness": 16, "seed": 0},
        {"staleness": 4, "method": "none"},
        {"staleness": 16, "seed": 1},
        {"staleness": 4, "rate": 3e-3},
        {"staleness": 4, "task": "sums"},
    )
    assert [(g.staleness, g.method, g.learning_rate, g.task) for g in groups] == [
        ("4", "gac", "0.001", "sums"),
        ("4", "gac", "0.003", "reversal"),
        ("4", "none", "0.001", "reversal"),
        ("16", "gac", "0.001", "reversal"),
    ]
    assert len(groups[-1].runs) == 2


def test_runs_that_differ_in_another_setting_are_no_seeds_of_each_other(tmp_path):
    groups = groups_of(
        tmp_path,
        {"method": "dc", "compensation": 10.0, "seed": 0, "hardware": "a"},
        {"method": "dc", "compensation": 10.0, "seed": 1, "hardware": "b"},
        {"method": "dc", "compensation": 200.0, "seed": 0},
        {"method": "ppo", "compensation": 0.0},
        {"method": "dc", "compensation": 10.0, "staleness": 16},
    )
    assert [(g.method, g.staleness, len(g.runs)) for g in groups] == [
        ("dc, compensation 10", "4", 2),
        ("dc, compensation 200", "4", 1),
        ("ppo", "4", 1),
        ("dc", "16", 1),
    ]


def test_final_is_the_last_sixth_and_mean_is_all(tmp_path):
    summary = summary_of(tmp_path, [0.0] * 50 + [1.0] * 10)
    assert summary.final == 1.0 and summary.mean == pytest.approx(1 / 6)
    assert summary.samples_per_s == pytest.approx(64 / 0.5)
    # 13 steps: the last two, as a sixth is rounded down; of less than six, the last one.
    assert summary_of(tmp_path / "b", [0.0] * 10 + [0.3, 0.6, 0.9]).final == pytest.approx(0.75)
    assert summary_of(tmp_path / "c", [0.0, 0.3, 0.9]).final == 0.9


def test_samples_per_second_go_on_where_a_clock_begins_anew(tmp_path):
    from tests.unit.report.rl_known import fields_of
    from weft.core.records import RecordLog

    log = RecordLog(tmp_path / "records.jsonl")
    log.append("rl-run", method="gac")
    for step, seconds in enumerate([1.0, 2.0, 1.0, 2.0], start=1):
        log.append("rl-step", **fields_of(step, 0.5, seconds=seconds))
    ((summary,),) = (group.summaries for group in grouped(read_runs([tmp_path])))
    assert summary.samples_per_s == pytest.approx(4 * 64 / 4.0)


def noisy(shape, seed, scale=0.05):
    return np.array(shape) + scale * np.random.default_rng(seed).standard_normal(len(shape))


@pytest.mark.parametrize(
    ("shape", "collapsed"),
    [
        (np.linspace(0.1, 0.9, 120), False),
        (np.full(120, 0.3), False),
        ([*np.linspace(0.1, 0.9, 60), *np.linspace(0.9, 0.2, 60)], True),
        ([*np.linspace(0.1, 0.9, 60), *np.linspace(0.9, 0.7, 60)], False),
        ([*np.linspace(-5, -1, 60), *np.linspace(-1, -5, 60)], True),
        (np.linspace(0.9, 0.1, 120), True),
    ],
    ids=["learns", "flat", "collapses", "dips", "negative", "only falls"],
)
def test_a_collapse_is_the_loss_of_half_of_what_was_won(tmp_path, shape, collapsed):
    for seed in range(20):
        rewards = noisy(shape, seed)
        assert summary_of(tmp_path / str(seed), rewards).is_collapsed == collapsed


def test_runs_that_end_in_no_number_have_collapsed_and_others_that_know_nothing_have_not(tmp_path):
    nans = [0.5] * 30 + [math.nan] * 30
    assert summary_of(tmp_path / "a", nans).is_collapsed
    unknown = summary_of(tmp_path / "b", [None] * 20)
    assert not unknown.is_collapsed and unknown.final is None and unknown.best is None


def test_a_curve_is_the_mean_over_runs_with_its_interval(tmp_path):
    rewards = [[0.1, 0.2, 0.3], [0.3, 0.4, 0.5], [0.2, 0.6, 0.1]]
    (group,) = groups_of(tmp_path, *({"rewards": r, "seed": n} for n, r in enumerate(rewards)))
    found = curve(group.runs, "reward", points=50)
    assert found.steps.tolist() == [1, 2, 3]
    for at in range(3):
        expected = estimate([r[at] for r in rewards])
        assert found.mean[at] == pytest.approx(expected.mean)
        assert found.high[at] - found.mean[at] == pytest.approx(expected.half)
        assert found.mean[at] - found.low[at] == pytest.approx(expected.half)


def test_the_band_of_two_runs_reaches_from_one_to_the_other(tmp_path):
    rewards = [[0.1, 0.5, 0.3], [0.3, 0.4, 0.3]]
    (group,) = groups_of(tmp_path, *({"rewards": r, "seed": n} for n, r in enumerate(rewards)))
    found = curve(group.runs, "reward", points=50)
    assert found.low.tolist() == pytest.approx([0.1, 0.4, 0.3])
    assert found.high.tolist() == pytest.approx([0.3, 0.5, 0.3])


def test_where_a_run_has_ended_the_others_go_on(tmp_path):
    (group,) = groups_of(tmp_path, {"rewards": [0.1, 0.2]}, {"rewards": [0.3, 0.4, 0.5], "seed": 1})
    found = curve(group.runs, "reward", points=50)
    assert found.mean.tolist() == pytest.approx([0.2, 0.3, 0.5])
    assert np.isfinite(found.low).tolist() == [True, True, False]


def test_long_curves_are_thinned_by_means(tmp_path):
    rewards = np.arange(1000.0)
    (group,) = groups_of(tmp_path, {"rewards": rewards, "steps": 1000})
    found = curve(group.runs, "reward", points=100)
    assert len(found.steps) == 100
    assert found.mean.tolist() == pytest.approx((np.arange(100) * 10 + 4.5).tolist())
    assert found.steps.tolist() == pytest.approx((np.arange(100) * 10 + 5.5).tolist())


def test_a_field_that_no_run_knows_has_no_curve(tmp_path):
    (group,) = groups_of(tmp_path, {"rewards": [None, None]})
    assert (
        curve(group.runs, "reward", points=50) is None
        and curve(group.runs, "fresh_reward", points=50) is None
    )
