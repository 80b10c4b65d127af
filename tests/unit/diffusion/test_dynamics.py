"""How errors travel: factors of solvers, responses of denoisers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.diffusion.recorded import recording
from weft.diffusion.dynamics import Responses, solver_factors


def test_a_step_of_eulers_method_is_found():
    runs = [recording(seed=n) for n in range(2)]
    found = solver_factors(runs)
    np.testing.assert_allclose(found[1:, 0], 1.0, rtol=1e-3)
    np.testing.assert_allclose(found[:, 1], np.diff(runs[0].positions), rtol=1e-3)
    np.testing.assert_allclose(found[:, 2:] / found[:, 1:2], 0.0, atol=1e-3)


def test_a_step_of_two_outputs_is_found():
    run = recording(numbers=64, guided=False, degree=5)
    g = run.outputs
    states = [np.ones(64)]
    for n in range(12):
        before = g[n - 1] if n else 0.0
        states.append(0.9 * states[-1] - 3.0 * g[n] + before)
    found = solver_factors([replace(run, states=np.stack(states))])
    np.testing.assert_allclose(found[4:, :3], [[0.9, -3.0, 1.0]] * 8, rtol=1e-3)


def test_a_last_step_that_leads_nobody_knows_where_is_like_the_one_before_of_its_length():
    run = recording(guided=False)
    states = run.states.copy()
    states[-1] = np.nan
    found = solver_factors([replace(run, states=states)])
    np.testing.assert_allclose(found[-1, :2], [1.0, np.diff(run.positions)[-1]], rtol=1e-4)


def test_responses_are_found_behind_the_disturbance_and_taken_for_those_before():
    exact = recording()
    rng = np.random.default_rng(0)
    error = rng.normal(size=exact.states.shape)
    disturbed = replace(
        exact,
        states=exact.states + error,
        outputs=exact.outputs + 0.5 * error[:-1],
        offsets=exact.offsets - 0.25 * error[:-1],
    )
    responses = Responses(12)
    responses.add(disturbed, exact, 4)
    found = responses.found()
    np.testing.assert_allclose(found[0], 0.5)
    np.testing.assert_allclose(found[1], -0.25)


def test_longer_errors_count_more():
    exact = recording(guided=False)
    responses = Responses(12)
    for length, response in ((1.0, 1.0), (3.0, 2.0)):
        error = length * np.ones_like(exact.states)
        responses.add(
            replace(
                exact, states=exact.states + error, outputs=exact.outputs + response * error[:-1]
            ),
            exact,
            0,
        )
    assert responses.found()[0] == pytest.approx(np.full(12, (1.0 + 9 * 2.0) / 10))


def test_without_a_disturbance_there_is_no_response():
    assert not Responses(12).found().any()
