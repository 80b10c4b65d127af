import math

import numpy as np
import pytest

from weft.core.errors import InputError
from weft.tokens.micro import Trials, bootstrapped, cost_of_pass, pass_frontier


def arms(**own):
    """Trials of arms that share tasks: name -> (outcomes, cost of each attempt)."""
    rows = [(name, task, y, usd) for name, (ys, usd) in own.items() for task, y in enumerate(ys)]
    return Trials(
        inputs={"tokens": [100.0] * len(rows)},
        outcome=[row[2] for row in rows],
        task=[str(row[1]) for row in rows],
        arm=[row[0] for row in rows],
        usd=[row[3] for row in rows],
    )


def test_a_pass_costs_all_attempts_over_those_that_passed():
    found = cost_of_pass(arms(low=([1, 0, 0, 0] * 10, 0.1), high=([1, 1, 1, 0] * 10, 0.6)))
    assert [own.name for own in found] == ["low", "high"]
    assert [own.usd_per_pass.value for own in found] == pytest.approx([0.4, 0.8])
    assert found[0].usd_per_pass.low < 0.4 < found[0].usd_per_pass.high


def test_intervals_agree_with_drawing_tasks_again():
    rng = np.random.default_rng(0)
    own = arms(low=((rng.random(120) < 0.4).astype(float), 0.1))
    delta = cost_of_pass(own)[0].usd_per_pass
    drawn = bootstrapped(own, lambda t: cost_of_pass(t)[0].usd_per_pass.value, draws=400).interval
    assert (delta.low, delta.high) == pytest.approx((drawn.low, drawn.high), rel=0.1)


def test_an_arm_that_never_passed_costs_infinitely_much_and_at_least_something():
    (own,) = cost_of_pass(arms(none=([0] * 30, 0.1)))
    assert own.usd_per_pass.value == math.inf
    assert own.usd_per_pass.low == pytest.approx(0.1 / (1 - 0.05 ** (1 / 30)))


def test_the_frontier_leaves_out_what_a_mix_of_others_betters():
    steps = pass_frontier(
        arms(
            low=([1, 0, 0, 0] * 10, 0.1),
            dull=([1, 0, 0, 1] * 5 + [1, 0, 0, 0] * 5, 0.5),
            high=([1, 1, 1, 0] * 10, 0.6),
            worse=([1, 1, 0, 0] * 10, 0.9),
        )
    )
    assert [(s.before, s.after) for s in steps] == [("nothing", "low"), ("low", "high")]
    assert steps[1].usd_per_pass.value == pytest.approx(0.5 / 0.5)


def test_the_same_tasks_under_two_arms_are_a_pair():
    rng = np.random.default_rng(1)
    low = (rng.random(200) < 0.5).astype(float)
    high = np.maximum(low, rng.random(200) < 0.1)
    same = arms(low=(low, 0.1), high=(high, 0.2))
    apart = Trials(
        inputs=same.inputs,
        outcome=same.y,
        task=[f"{a}{t}" for a, t in zip(same.arm, same.task, strict=True)],
        arm=same.arm,
        usd=same.usd,
    )
    paired, unpaired = (pass_frontier(own)[1].usd_per_pass for own in (same, apart))
    assert paired.value == pytest.approx(unpaired.value)
    assert paired.high < math.inf
    assert unpaired.high == math.inf  # not told from no gain at all


def test_costs_have_to_be_known():
    with pytest.raises(InputError, match="no costs"):
        cost_of_pass(Trials(inputs={"x": [1, 1]}, outcome=[0, 1], task=["a", "b"]))


def test_a_bootstrap_repeats_itself_by_seed_and_counts_what_failed():
    own = arms(low=([1, 0, 0, 0] * 10, 0.1))
    first, second, other = (
        bootstrapped(own, lambda t: float(t.y.mean()), draws=50, seed=s) for s in (1, 1, 2)
    )
    assert first == second != other

    def fussy(trials):
        raise InputError(need="", got="", hint="")

    with pytest.raises(InputError):
        bootstrapped(own, fussy, draws=10)
