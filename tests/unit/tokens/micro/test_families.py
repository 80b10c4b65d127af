import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.tokens.micro import Ces, CobbDouglas, Translog
from weft.tokens.micro.estimate import jacobian

THREE = ("compute", "reasoning", "tool")
NESTED = Ces((("compute",), ("reasoning", "tool")))
logs = st.lists(st.floats(-2.0, 2.0), min_size=3, max_size=3).map(np.array)
rhos = st.floats(-3.0, 0.9)


@settings(max_examples=30)
@given(at=logs, outer=rhos, inner=rhos)
def test_elasticities_are_derivatives(at, outer, inner):
    cases = [
        (CobbDouglas(), np.array([0.2, 0.3, 0.1])),
        (Ces(), np.array([0.7, outer, 0.2, -0.4])),
        (NESTED, np.array([0.7, outer, 0.2, inner, -0.4])),
        (Translog(), np.array([0.2, 0.3, 0.1, 0.05, -0.02, 0.01, 0.03, 0.0, -0.04])),
    ]
    for family, theta in cases:
        assert len(theta) == len(family.parameters(THREE))
        slopes = jacobian(lambda x, f=family, t=theta: f.index(t, x[None, :]), at)[0]
        assert family.elasticities(theta, at[None, :])[0] == pytest.approx(slopes, abs=1e-7)
        assert family.index(theta, np.zeros((1, 3)))[0] == pytest.approx(0.0, abs=1e-12)


@settings(max_examples=30)
@given(at=logs)
def test_a_ces_of_unit_substitution_is_cobb_and_douglas(at):
    odds = np.array([0.2, -0.4])
    shares = np.exp(np.concatenate([[0.0], odds]))
    shares /= shares.sum()
    for rho in (0.0, 1e-9, -1e-4):
        found = Ces().index(np.array([0.7, rho, *odds]), at[None, :])[0]
        assert found == pytest.approx(CobbDouglas().index(0.7 * shares, at[None, :])[0], abs=1e-3)
    across = [Ces().index(np.array([0.7, r, *odds]), at[None, :])[0] for r in (0.999e-3, 1.001e-3)]
    assert across[0] == pytest.approx(across[1], abs=1e-5)


@settings(max_examples=30)
@given(at=logs, rho=rhos)
def test_nests_of_the_same_substitution_are_one(at, rho):
    flat = np.array([0.7, rho, 0.3, -0.2])
    inner = np.exp([0.3, -0.2])
    nested = np.array([0.7, rho, np.log(inner.sum()), rho, -0.5])
    assert NESTED.index(nested, at[None, :])[0] == pytest.approx(Ces().index(flat, at[None, :])[0])


@settings(max_examples=30)
@given(at=st.lists(st.floats(-1.0, 1.0), min_size=2, max_size=2).map(np.array), rho=rhos)
def test_a_translog_reads_the_substitution_off_its_isoquant(at, rho):
    ces = np.array([0.7, rho, 0.3])
    slope = Ces().elasticities(ces, at[None, :])[0]
    bend = jacobian(lambda x: Ces().elasticities(ces, x[None, :])[0], at)
    local = np.array([*(slope - bend @ at), bend[0, 0], bend[0, 1], bend[1, 1]])
    assert Translog().rho(local, at)[0] == pytest.approx(rho, abs=1e-5)


def test_nests_have_to_hold_each_factor_once():
    with pytest.raises(InputError, match="in the order of the trials"):
        Ces((("a",), ("c", "b"))).parameters(("a", "b", "c"))
    with pytest.raises(InputError, match="two nests or more"):
        Ces().parameters(("a",))
