"""The benchmark of stale samples: its policy, its tasks, its runs and what it makes of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.gac import runs
from benchmarks.gac.methods import CORRECTIONS, METHODS, RECIPE
from benchmarks.gac.policy import Policy
from benchmarks.gac.run import SETTINGS, SOME
from benchmarks.gac.runs import Trial, results
from benchmarks.gac.task import TASKS
from benchmarks.gac.trial import Outcome, Setting, run
from benchmarks.gac.tuned import Cell, Plan, interval, measure
from weft.rl import GAC

POLICY = Policy(width=16, layers=2)
SHORT = Setting(
    name="short", task="reverse 3", width=16, layers=1, prompts=8, group=4, updates=12, reach=0.01
)


def _weights(policy: Policy = POLICY) -> torch.Tensor:
    # Larger than those that training begins from, so that attention is not uniform.
    return policy.initial(torch.Generator().manual_seed(0)) * 8


def test_the_policy_is_that_of_transformers() -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=16,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        tie_word_embeddings=False,
        use_cache=False,
    )
    theirs = Qwen2ForCausalLM(config).eval()
    vector = _weights()
    ours = iter(POLICY._split(vector))
    state = {"model.embed_tokens.weight": next(ours)}
    for layer in range(2):
        at = f"model.layers.{layer}."
        state[at + "input_layernorm.weight"] = next(ours)
        qkv, bias = next(ours), next(ours)
        for name, weight, own in zip("qkv", qkv.chunk(3), bias.chunk(3), strict=True):
            state[at + f"self_attn.{name}_proj.weight"] = weight
            state[at + f"self_attn.{name}_proj.bias"] = own
        state[at + "self_attn.o_proj.weight"] = next(ours)
        state[at + "post_attention_layernorm.weight"] = next(ours)
        gate, up = next(ours).chunk(2)
        state[at + "mlp.gate_proj.weight"], state[at + "mlp.up_proj.weight"] = gate, up
        state[at + "mlp.down_proj.weight"] = next(ours)
    state["model.norm.weight"], state["lm_head.weight"] = next(ours), next(ours)
    theirs.load_state_dict(state)
    rng = torch.Generator().manual_seed(1)
    prompts, answers = TASKS["reverse 3"].draw(5, rng)
    with torch.no_grad():
        wanted = theirs(torch.cat([prompts, answers], 1)).logits[:, 3:6]
        found = POLICY.logits(vector, prompts, answers)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_what_is_sampled_has_the_probabilities_that_are_told() -> None:
    rng = torch.Generator().manual_seed(2)
    prompts, _ = TASKS["sort 4"].draw(6, rng)
    weights = _weights()
    answers, logs, entropies = POLICY.sample(weights, prompts, group=3, count=4, rng=rng)
    every = POLICY.logits(weights, prompts, answers).log_softmax(-1)
    torch.testing.assert_close(logs, every.gather(2, answers[..., None]).squeeze(2))
    torch.testing.assert_close(entropies, -(every.exp() * every).sum(2))


@pytest.mark.parametrize(
    ("name", "prompt", "answer"),
    [
        ("reverse 3", "d d d = ", lambda d: d[::-1]),
        ("sort 4", "d d d d = ", lambda d: sorted(d)),
    ],
)
def test_right_answers(name: str, prompt: str, answer) -> None:
    prompts, right = TASKS[name].draw(50, torch.Generator().manual_seed(3))
    assert prompts.shape[1] == len(prompt.split())
    for asked, own in zip(prompts.tolist(), right.tolist(), strict=True):
        assert own == list(answer(asked[:-1]))


def test_sums_begin_with_the_lowest_digit() -> None:
    prompts, right = TASKS["add 2"].draw(50, torch.Generator().manual_seed(4))
    for asked, own in zip(prompts.tolist(), right.tolist(), strict=True):
        left, other = asked[0] + 10 * asked[1], asked[3] + 10 * asked[4]
        assert own[0] + 10 * own[1] + 100 * own[2] == left + other


def _same(one: Outcome, other: Outcome) -> bool:
    return replace(one, seconds=0.0, applied=None) == replace(other, seconds=0.0, applied=None)


def test_runs_repeat() -> None:
    found = [run(SHORT, METHODS["TIS"], rate=1e-3, lag=3, seed=0) for _ in range(2)]
    assert _same(*found)


def test_without_a_lag_corrections_are_the_plain_gradient() -> None:
    plain = run(SHORT, METHODS["none"], rate=1e-3, lag=0, seed=0)
    for name in ("TIS", "PPO clip", "M2PO", "decoupled PPO", "TIS(1) + KL"):
        corrected = run(SHORT, METHODS[name], rate=1e-3, lag=0, seed=0)
        assert corrected.rewards == pytest.approx(plain.rewards), name


def test_samples_are_as_old_as_the_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    ages: list[float | None] = []

    class Watched(GAC):
        def before(self) -> bool:
            ages.append(self.staleness)
            return super().before()

    monkeypatch.setattr("benchmarks.gac.trial.GAC", Watched)
    run(SHORT, METHODS["GAC"], rate=1e-3, lag=4, seed=0)
    assert ages == [0.0, 1.0, 2.0, 3.0, *[4.0] * 8]
    ages.clear()
    run(replace(SHORT, random_lag=True), METHODS["GAC"], rate=1e-3, lag=4, seed=0)
    assert len(set(ages)) > 3
    assert max(age for age in ages if age is not None) <= 20


def test_a_trial_is_known_by_its_method(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(setting=SHORT, method="GAC", rate=1e-3, lag=1, seed=0)
    first = trial.key
    monkeypatch.setitem(METHODS, "GAC", replace(METHODS["GAC"], gac={"mode": "shrink"}))
    assert trial.key != first
    monkeypatch.setitem(METHODS, "GAC", replace(METHODS["GAC"], gac={}))
    assert trial.key == first


def test_a_run_is_done_once(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(setting=SHORT, method="none", rate=1e-3, lag=1, seed=0)
    kept = tmp_path / "kept.jsonl"
    first = results([trial], kept=kept, workers=1)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it was run again")

    monkeypatch.setattr(runs, "ProcessPoolExecutor", refuse)
    assert results([trial, trial], kept=kept, workers=1) == first
    with pytest.raises(AssertionError, match="run again"):
        results([replace(trial, seed=1)], kept=kept, workers=1)


def test_rates_are_chosen_on_seeds_of_their_own(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(trials, **_: object):
        asked.extend(trials)
        return {trial: _outcome(trial) for trial in trials}

    def _outcome(trial: Trial) -> Outcome:
        # The first rate is better on the seeds that are reported, the second where it is chosen.
        worth = 0.9 if (trial.rate == 0.2) == (trial.seed == 7) else 0.1
        return Outcome(
            base=0.4,
            rewards=(worth,) * 6,
            mean=worth,
            cosine=0,
            applied=None,
            kl=0,
            entropy=0,
            seconds=0,
        )

    asked: list[Trial] = []
    monkeypatch.setattr("benchmarks.gac.tuned.results", told)
    cell = Cell(setting="short", method="none", lag=2)
    plan = Plan(
        settings={"short": SHORT}, cells=[cell], rates=(0.1, 0.2), tuning=(7,), seeds=(1, 2)
    )
    found = measure(plan, kept=tmp_path / "kept", workers=1)
    assert found[cell].rate == 0.2
    assert found[cell].final == pytest.approx(0.1)
    assert found[cell].collapses == 1.0
    assert {trial.setting.warm for trial in asked} == {1, 2, 7}


def test_intervals_are_those_of_a_textbook() -> None:
    # Of 1, 2, 3: mean 2, standard error 1 / sqrt(3), t of two degrees of freedom 4.303.
    assert interval([1.0, 2.0, 3.0]) == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
    assert interval([1.0]) == float("inf")


def test_all_that_is_named_exists() -> None:
    assert {*CORRECTIONS, *SOME, RECIPE} <= set(METHODS)
    assert {setting.task for setting in SETTINGS.values()} <= set(TASKS)
