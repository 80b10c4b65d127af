import subprocess

import numpy as np
import pytest

from benchmarks.tokens import principles
from benchmarks.tokens.places import VARIABLE
from weft.tokens.serving import Limits, capacity, demand_of, priced_steps

SMALL = {"small on 1": priced_steps(principles._plan(principles.SMALL, 1)).times}


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Requests where there is no trace."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setattr("benchmarks.tokens.places.BESIDE", tmp_path)
    own = principles._requests(600)
    assert len(own) == 600 and 600 < np.mean([one.input_tokens for one in own]) < 1800
    return own


def test_prices_of_a_served_model_hold_what_is_said_of_them(drawn):
    for part in (
        principles._duals(SMALL, drawn),
        principles._kept(drawn),
        principles._hidden(drawn),
    ):
        assert [claim.claim for claim in part.claims if not claim.ok] == []


def test_no_order_of_work_goes_beyond_the_programme(drawn):
    claim = principles._most(SMALL, drawn).claims[0]
    assert claim.ok and claim.value > 0.8


@pytest.mark.usefixtures("drawn")
def test_a_server_that_is_used_half_costs_twice_as_much_a_request():
    part = principles._arriving(SMALL, principles._requests(4000))
    assert len(part.rows) == len(principles.LOADS)
    # Of so few, those that come last are seen.
    assert part.claims[0].value < 0.1


def test_a_wrong_closed_form_is_found(drawn):
    # The foil: without the words that a step makes, it is not the optimum of the programme.
    times, limits = SMALL["small on 1"], Limits(token_s=1.0, sequences=8)
    sums = principles._Sums(1.0, 1.0, 1.0, drawn)
    exact = principles._servers(times, sums, limits)
    assert capacity(times, demand_of(drawn), limits).server_s == pytest.approx(exact, rel=1e-9)
    off = principles._servers(times, principles._Sums(1.0, 1.0, 1.01, drawn), limits)
    assert off > exact * (1 + 1e-4)


def test_lists_that_are_not_there_are_said_not_to_be(monkeypatch):
    class Nothing:
        returncode, stdout = 1, ""

    monkeypatch.setattr(subprocess, "run", lambda *_, **__: Nothing())
    assert ("V11", "list prices", "litellm", "not installed") in principles._listed("none").rows
