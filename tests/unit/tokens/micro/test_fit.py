import numpy as np
import pytest

from weft.core.errors import InputError
from weft.tokens.micro import (
    Ces,
    CobbDouglas,
    Link,
    Mode,
    Translog,
    Trials,
    World,
    fit_production,
    simulated,
)

ARMS = np.log(2.0) * np.array([[-1.5], [-0.5], [0.5], [1.5]])
GRID = np.array([[a, b] for a in (-1.0, 0.0, 1.0) for b in (-1.0, 0.0, 1.0)])


def hard_world(**changes):
    own = {"family": CobbDouglas(), "theta": np.array([0.5]), "arms": ARMS, "harm": 2.0}
    return World(**(own | changes))


def trials(world, tasks=300, attempts=4, seed=0):
    return world.trials(tasks, attempts, np.random.default_rng(seed))


def test_an_association_has_the_wrong_sign_where_arms_have_the_right_one():
    own = trials(hard_world())
    assert fit_production(own, mode=Mode.OBSERVATIONAL).elasticities()["tokens"].high < 0.0
    for mode in (Mode.EXPERIMENTAL, Mode.WITHIN):
        found = fit_production(own, mode=mode).elasticities()["tokens"]
        assert 0.5 in found and found.low > 0.0


def test_attempts_that_go_wrong_and_run_on_deceive_a_comparison_within_tasks_but_not_arms():
    own = trials(hard_world(restless=1.0))
    assert fit_production(own, mode=Mode.WITHIN).elasticities()["tokens"].high < 0.0
    assert 0.5 in fit_production(own, mode=Mode.EXPERIMENTAL).elasticities()["tokens"]


@pytest.mark.parametrize("link", [Link.LOGIT, Link.IDENTITY])
def test_a_marginal_product_is_that_of_the_world_also_where_difficulty_hides_from_tokens(link):
    world = hard_world(noise=0.4)
    true = (world.passes([1001.0]) - world.passes([999.0])) / 2.0
    fit = fit_production(trials(world, tasks=600), mode=Mode.EXPERIMENTAL, link=link)
    found = fit.marginal_product("tokens", {"tokens": 1000.0})
    assert true in found and found.low > 0.0
    assert world.passes([1000.0]) in fit.outcome({"tokens": 1000.0})


def test_two_stages_with_arms_are_least_squares_on_their_means():
    own = trials(hard_world(link=Link.LOG, noise=0.3))
    found = fit_production(own, mode=Mode.EXPERIMENTAL).elasticities()["tokens"].value
    arms = sorted(set(own.arm))
    inside = [np.array([arm == name for arm in own.arm]) for name in arms]
    x = np.array([own.logs[rows, 0].mean() for rows in inside])
    y = np.array([np.log(own.y[rows]).mean() for rows in inside])
    weight = np.array([rows.sum() for rows in inside])
    x, y = x - np.average(x, weights=weight), y - np.average(y, weights=weight)
    assert found == pytest.approx(float((weight * x * y).sum() / (weight * x * x).sum()))


def test_within_is_least_squares_with_an_indicator_for_each_task():
    own = trials(hard_world(link=Link.LOG, noise=0.3), tasks=20)
    columns = np.hstack([own.logs, np.eye(20)[own.clusters]])
    slope = np.linalg.lstsq(columns, np.log(own.y), rcond=None)[0][0]
    found = fit_production(own, mode=Mode.WITHIN).elasticities()["tokens"].value
    assert found == pytest.approx(slope)


@pytest.mark.parametrize("mode", [Mode.EXPERIMENTAL, Mode.WITHIN])
@pytest.mark.parametrize("rho", [-1.0, 0.5])
def test_substitution_is_recovered(rho, mode):
    theta = np.array([0.8, rho, 0.3])
    world = World(family=Ces(), theta=theta, arms=GRID, link=Link.LOG, harm=0.3, noise=0.2)
    fit = fit_production(trials(world), mode=mode, family=Ces())
    found = fit.substitution()["a and b"]
    assert 1.0 / (1.0 - rho) in found
    assert (found.high < 1.0) if rho < 0.0 else (found.low > 1.0)


def test_a_translog_finds_the_substitution_of_a_ces_at_its_centre():
    world = World(
        family=Ces(),
        theta=np.array([0.8, -1.0, 0.0]),
        arms=0.3 * GRID,
        link=Link.LOG,
        harm=0.0,
        noise=0.01,
        reaction=0.0,
    )
    fit = fit_production(trials(world, tasks=2000), mode=Mode.EXPERIMENTAL, family=Translog())
    assert fit.substitution()["a and b"].value == pytest.approx(0.5, abs=0.03)


def test_comparing_arms_within_tasks_is_sharper():
    own = trials(hard_world(link=Link.LOG, noise=0.1))
    apart, paired = (
        fit_production(own, mode=Mode.EXPERIMENTAL, paired=paired).elasticities()["tokens"]
        for paired in (False, True)
    )
    assert 0.5 in paired
    assert paired.high - paired.low < 0.5 * (apart.high - apart.low)


def test_models_have_levels_of_their_own():
    weak, strong = (trials(hard_world(level=level), tasks=400, seed=3) for level in (-1.0, 1.0))
    both = Trials(
        inputs={"tokens": np.concatenate([weak.inputs["tokens"], strong.inputs["tokens"]])},
        outcome=np.concatenate([weak.y, strong.y]),
        task=[*weak.task, *strong.task],
        arm=[*weak.arm, *strong.arm],
        model=["weak"] * len(weak) + ["strong"] * len(strong),
    )
    fit = fit_production(both, mode=Mode.EXPERIMENTAL)
    assert fit.outcome(model="strong").low > fit.outcome(model="weak").high
    assert 0.5 in fit.elasticities()["tokens"]


def test_no_marginal_product_comes_of_an_association():
    fit = fit_production(trials(hard_world()), mode=Mode.OBSERVATIONAL)
    for ask in (
        lambda: fit.marginal_product("tokens"),
        lambda: fit.outcome(),
        lambda: fit.usd_per_outcome("tokens", {"tokens": 1e-5}),
        lambda: fit.substitution(),
    ):
        with pytest.raises(InputError, match="observational fit: hard tasks take more tokens") as e:
            ask()
        assert "draw a cap or an effort at random" in e.value.hint


def test_without_arms_an_experiment_says_what_is_missing():
    own = trials(hard_world())
    bare = Trials(inputs=own.inputs, outcome=own.y, task=own.task)
    with pytest.raises(InputError, match="at least 2 arms"):
        fit_production(bare, mode=Mode.EXPERIMENTAL)


def test_attempts_for_which_nothing_was_drawn_are_no_arm():
    own = trials(hard_world())
    some = Trials(inputs=own.inputs, outcome=own.y, task=own.task, arm=["", *own.arm[1:]])
    with pytest.raises(InputError, match="none for 1 of 1200"):
        fit_production(some, mode=Mode.EXPERIMENTAL)


def test_arms_that_do_not_move_tokens_are_called_weak():
    own = trials(hard_world(arms=0.02 * ARMS, noise=0.5), tasks=100)
    fit = fit_production(own, mode=Mode.EXPERIMENTAL)
    assert any("weak arms" in warning for warning in fit.warnings)
    assert "weak arms" in fit.explain()


def test_arms_that_move_two_inputs_alike_are_weak_for_both():
    alike = np.repeat(ARMS, 2, axis=1)
    world = hard_world(theta=np.array([0.2, 0.2]), arms=alike, noise=0.5, link=Link.LOG)
    fit = fit_production(trials(world), mode=Mode.EXPERIMENTAL)
    assert max(fit.first_stage) < 10.0
    apart = hard_world(theta=np.array([0.2, 0.2]), arms=GRID, noise=0.5, link=Link.LOG)
    assert min(fit_production(trials(apart), mode=Mode.EXPERIMENTAL).first_stage) > 50.0


def test_few_tasks_are_called_few():
    own = trials(hard_world(link=Link.LOG, noise=0.3), tasks=8)
    assert any("8 clusters" in w for w in fit_production(own, mode=Mode.WITHIN).warnings)


def test_a_rule_without_exceptions_is_called_separation():
    own = Trials(inputs={"tokens": [1, 2, 3, 4]}, outcome=[0, 0, 1, 1], task=list("abcd"))
    with pytest.raises(InputError, match="separation"):
        fit_production(own, mode=Mode.OBSERVATIONAL)


def test_tasks_with_one_outcome_each_say_nothing_within_themselves():
    own = Trials(inputs={"tokens": [1, 2, 3, 4]}, outcome=[0, 0, 1, 1], task=list("aabb"))
    with pytest.raises(InputError, match="each with one outcome"):
        fit_production(own, mode=Mode.WITHIN)


def test_inputs_that_go_together_cannot_be_told_apart():
    own = trials(hard_world(link=Link.LOG))
    twice = {"a": own.inputs["tokens"], "b": 2.0 * np.asarray(own.inputs["tokens"])}
    with pytest.raises(InputError, match="fit equally well"):
        fit_production(
            Trials(inputs=twice, outcome=own.y, task=own.task, arm=own.arm), mode=Mode.EXPERIMENTAL
        )


def test_a_text_says_what_it_rests_on():
    drawn = simulated(tasks=200, attempts=4, elasticity=0.5, difficulty=1.0, seed=1)
    told = fit_production(drawn.trials, mode=Mode.EXPERIMENTAL).explain()
    assert told.startswith(
        "log odds of passing by tokens: Cobb-Douglas, experimental (800 attempts"
    )
    assert "arms were drawn at random, and change outcomes through these inputs alone" in told
    assert "1,000 more  tokens 0.0" in told
    told = fit_production(drawn.trials, mode=Mode.OBSERVATIONAL).explain()
    assert "this is an association" in told and "1,000 more" not in told


def test_nests_are_told_apart():
    grid = np.array([[a, b, c] for a in (-1.0, 1.0) for b in (-1.0, 0.0, 1.0) for c in (-1.0, 1.0)])
    family = Ces((("a",), ("b", "c")))
    world = World(
        family=family,
        theta=np.array([0.8, -1.0, 0.7, 0.6, 0.2]),
        arms=grid,
        link=Link.LOG,
        harm=0.1,
        noise=0.1,
    )
    fit = fit_production(trials(world, tasks=400), mode=Mode.WITHIN, family=family)
    found = fit.substitution()
    assert 0.5 in found["a and (b, c)"] and 2.5 in found["b and c"]
    assert found["b and c"].low > found["a and (b, c)"].high


def test_substitution_is_told_of_passing_as_well():
    # With noise, for otherwise difficulty moves both inputs as one, and one control says it all.
    theta = np.array([1.5, -2.0, 0.0])
    world = World(family=Ces(), theta=theta, arms=1.5 * GRID, harm=1.0, noise=0.3)
    fit = fit_production(trials(world, tasks=1500), mode=Mode.EXPERIMENTAL, family=Ces())
    assert 1.0 / 3.0 in fit.substitution()["a and b"]
    assert fit.substitution()["a and b"].high < 1.0


def test_an_arm_for_each_task_is_warned_of():
    drawn = simulated(tasks=60, attempts=3, elasticity=0.6, difficulty=1.0, seed=2).trials
    confused = Trials(
        inputs=drawn.inputs, outcome=drawn.outcome, task=drawn.task, arm=list(drawn.task)
    )
    told = fit_production(confused, mode=Mode.EXPERIMENTAL).explain()
    assert "60 arms met one task each" in told
    assert "met one task" not in fit_production(drawn, mode=Mode.EXPERIMENTAL).explain()
