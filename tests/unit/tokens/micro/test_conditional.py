from itertools import combinations

import numpy as np
import pytest

from weft.tokens.micro.conditional import _Padded, conditional_fit
from weft.tokens.micro.families import CobbDouglas
from weft.tokens.micro.index import Index


def test_the_denominator_and_its_derivatives_are_sums_over_all_sets():
    rng = np.random.default_rng(0)
    tasks = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    y = np.array([1, 0, 1, 0, 0, 1, 0, 0.0])
    eta, slopes = rng.standard_normal(8), rng.standard_normal((8, 2))
    log_all, mean, spread = _Padded.of(y, tasks).moments(eta, slopes)
    for task, size in ((0, 2), (1, 1)):
        sets = [list(s) for s in combinations(np.flatnonzero(tasks == task), size)]
        weight = np.array([np.exp(eta[s].sum()) for s in sets])
        g = np.array([slopes[s].sum(axis=0) for s in sets])
        own = weight / weight.sum()
        assert log_all[task] == pytest.approx(np.log(weight.sum()))
        assert mean[task] == pytest.approx(own @ g)
        assert spread[task] == pytest.approx((own[:, None] * g).T @ g - np.outer(own @ g, own @ g))


def test_of_pairs_it_is_a_logit_of_the_difference():
    rng = np.random.default_rng(1)
    logs = rng.standard_normal((400, 1))
    tasks = np.repeat(np.arange(200), 2)
    y = (rng.random(400) < 1 / (1 + np.exp(-0.7 * logs[:, 0]))).astype(float)
    index = Index(family=CobbDouglas(), logs=logs, fixed=np.zeros((400, 0)))
    (slope,), _ = conditional_fit(y, tasks, index, [np.zeros(1)], "")
    kept = y[::2] != y[1::2]
    difference, first = (logs[::2] - logs[1::2])[kept, 0], y[::2][kept]
    score = np.sum(difference * (first - 1 / (1 + np.exp(-slope * difference))))
    assert score == pytest.approx(0.0, abs=1e-6)
