import math

import numpy as np
import pytest

from weft.core.errors import InputError
from weft.tokens.micro.estimate import Estimate, Interval, cluster_sums, jacobian


def test_the_error_of_a_mean_is_that_of_means_of_clusters():
    rng = np.random.default_rng(0)
    y, clusters = rng.standard_normal(60), np.repeat(np.arange(20), 3)
    sums = cluster_sums((y - y.mean())[:, None], clusters)
    found = Estimate(values=np.array([y.mean()]), influence=sums)
    means = y.reshape(20, 3).mean(axis=1)
    assert found.errors[0] == pytest.approx(means.std(ddof=1) / np.sqrt(20))


def test_a_function_of_estimates_has_the_error_of_the_delta_method():
    rng = np.random.default_rng(1)
    two = Estimate(values=np.array([2.0, 3.0]), influence=rng.standard_normal((30, 2)))
    found = two.through(lambda v: np.array([v[0] * v[1] ** 2]))
    slope = np.array([9.0, 12.0])
    assert found.errors[0] == pytest.approx(
        float(np.sqrt(slope @ two.covariance @ slope)), rel=1e-6
    )


def test_derivatives_are_exact_to_nine_digits():
    assert jacobian(np.exp, np.array([0.3]))[0, 0] == pytest.approx(np.exp(0.3), rel=1e-9)


def test_one_cluster_has_no_error():
    with pytest.raises(InputError, match="at least two tasks"):
        Estimate(values=np.zeros(1), influence=np.zeros((1, 1)))


def test_what_a_gain_costs_is_infinite_where_there_may_be_none():
    found = Interval(value=2.0, low=-1.0, high=4.0, level=0.9).inverted()
    assert (found.value, found.low, found.high, found.level) == (0.5, 0.25, math.inf, 0.9)
    assert Interval(value=-1.0, low=-2.0, high=0.0).inverted().low == math.inf
