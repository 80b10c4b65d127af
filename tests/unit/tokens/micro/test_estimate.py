import numpy as np
import pytest

from weft.core.errors import InputError
from weft.tokens.micro.estimate import Estimate, cluster_sums, jacobian, student_t

# From the tables of Student's t, two-sided.
TABLE = {(0.95, 1): 12.706, (0.95, 2): 4.303, (0.95, 5): 2.571, (0.99, 10): 3.169, (0.9, 30): 1.697}


@pytest.mark.parametrize(("level", "freedom"), TABLE)
def test_quantiles_are_those_of_the_tables(level, freedom):
    assert student_t(level, freedom) == pytest.approx(TABLE[level, freedom], rel=1.1e-3)


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
