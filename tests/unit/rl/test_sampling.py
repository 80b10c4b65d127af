"""Answers are drawn from the policy, with the probabilities that they say."""

from dataclasses import replace

import pytest
import torch

from tests.unit.rl.small import END, PAD, make_model, prompts, task
from weft.core.errors import InputError, RunError
from weft.rl.sampling import (
    ModelSampler,
    draw,
    make_sampler,
    padding_of,
    roll,
    seed_of,
    usable_device,
)
from weft.rl.task import Prompt
from weft.rl.weights import pack_weights


def log_probs_of(model, answer, temperature=1.0):
    """Those of an answer's tokens, from a plain pass over the whole sequence."""
    ids = torch.tensor([[*answer.prompt, *answer.tokens]])
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, len(answer.prompt) - 1 : -1]
    spread = torch.log_softmax(logits / temperature, -1)
    return [spread[n, token].item() for n, token in enumerate(answer.tokens)]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_those_of_the_whole_sequence(temperature):
    sampler = ModelSampler(task(temperature=temperature))
    model = make_model().eval()
    groups = sampler.sample(prompts(8, 4), count=4, seed=0)  # "8=" to "11=": padding on the left
    answers = [answer for group in groups for answer in group]
    assert len({len(answer.prompt) for answer in answers}) == 2
    for answer in answers:
        assert answer.log_probs == pytest.approx(log_probs_of(model, answer, temperature), abs=1e-5)


def test_answers_end_where_an_end_was_drawn():
    groups = ModelSampler(task(new_tokens=12)).sample(prompts(0, 8), count=8, seed=1)
    answers = [answer for group in groups for answer in group]
    ended = [answer for answer in answers if END in answer.tokens]
    assert ended and len(ended) < len(answers)
    assert all(answer.tokens.index(END) == len(answer.tokens) - 1 for answer in ended)
    assert all(len(answer.tokens) == 12 for answer in answers if answer not in ended)
    assert all("<" not in answer.text for answer in answers)


def test_the_same_seed_draws_the_same_answers_and_another_others():
    sampler = ModelSampler(task())
    one, again, other = (sampler.sample(prompts(0, 2), count=4, seed=s) for s in (1, 1, 2))
    assert one == again != other


def test_draws_follow_the_distribution():
    model = make_model().eval()
    asked = [1, 10]
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor([asked])).logits[0, -1].softmax(-1)
    drawn, _ = draw(
        model,
        [asked],
        count=20000,
        new_tokens=1,
        ends={END},
        pad=PAD,
        temperature=1.0,
        generator=torch.Generator().manual_seed(0),
    )
    found = torch.bincount(drawn[:, 0], minlength=len(wanted)) / len(drawn)
    # Five standard deviations of a share of 20000 draws.
    assert (found - wanted).abs().max() < 5 * (0.25 / 20000) ** 0.5


def test_loaded_weights_are_drawn_from():
    sampler = ModelSampler(task())
    before = sampler.sample(prompts(0, 2), count=4, seed=1)
    model = make_model()
    with torch.no_grad():
        model.lm_head.weight.mul_(-1)
    sampler.load(pack_weights(model))
    assert sampler.sample(prompts(0, 2), count=4, seed=1) != before


def test_a_roll_has_a_group_for_each_prompt_with_its_rewards():
    given = task(reward=lambda prompt, answer: prompt.key)
    groups = roll(given, make_sampler(given), (3, 12), version=5, seed=0)
    assert [[one.number for one in group] for group in groups] == [[3] * 4, [12] * 4]
    assert [[one.reward for one in group] for group in groups] == [[3.0] * 4, [2.0] * 4]
    assert {one.version for group in groups for one in group} == {5}


def test_what_is_drawn_depends_on_seed_and_numbers():
    given = task()
    sampler = make_sampler(given)
    one, again, other, next_one = (
        roll(given, sampler, numbers, version=0, seed=seed)
        for seed, numbers in ((0, (1,)), (0, (1,)), (1, (1,)), (0, (11,)))
    )
    assert one == again != other
    assert [r.tokens for r in one[0]] != [r.tokens for r in next_one[0]]


def test_a_task_may_bring_a_sampler_of_its_own():
    class Echo:
        def load(self, weights):
            raise AssertionError

        def sample(self, prompts, *, count, seed):
            return [[] for _ in prompts]

    given = task(make_sampler=Echo)
    sampler = make_sampler(given)
    assert isinstance(sampler, Echo)
    with pytest.raises(InputError, match="4 answers to each of 1 prompts"):
        roll(given, sampler, (1,), version=0, seed=0)


def test_a_reward_that_is_no_number_names_the_prompt():
    given = task(reward=lambda prompt, answer: float("nan"))
    with pytest.raises(InputError, match="prompt 7"):
        roll(given, make_sampler(given), (7,), version=0, seed=0)


@pytest.mark.parametrize("worth", [None, "right", [1.0, 2.0], 10**400])
def test_a_reward_of_another_kind_shows_the_answer(worth):
    given = task(reward=lambda prompt, answer: worth)
    with pytest.raises(InputError, match="in answer to '7='"):
        roll(given, make_sampler(given), (7,), version=0, seed=0)


def test_a_task_without_such_a_prompt_is_told():
    given = task(prompts=lambda first, count: prompts(first, count)[: max(0, 5 - first)])
    with pytest.raises(InputError, match=r"one prompt from prompts\(5, 1\)"):
        roll(given, make_sampler(given), (4, 5), version=0, seed=0)


def test_a_prompt_without_tokens_is_refused():
    with pytest.raises(InputError, match="at least one token"):
        ModelSampler(task()).sample([Prompt(text="1="), Prompt(text="")], count=2, seed=0)


def test_weights_that_are_no_numbers_are_not_drawn_from():
    sampler = ModelSampler(task())
    model = make_model()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("inf"))
    sampler.load(pack_weights(model))
    with pytest.raises(RunError, match="logits are finite"):
        sampler.sample(prompts(0, 2), count=2, seed=0)


@pytest.mark.parametrize("text", ["steam", "cpu:x", "meta", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(text):
    with pytest.raises(InputError, match=f"{text}: "):
        usable_device(text)


def test_a_tokenizer_without_padding_is_refused():
    given = task()
    tokenizer = given.make_tokenizer()
    tokenizer.pad_token = None
    with pytest.raises(InputError, match="padding token"):
        ModelSampler(replace(given, make_tokenizer=lambda: tokenizer))
    assert padding_of(given.make_tokenizer()) == PAD


def test_seeds_differ_for_different_numbers():
    assert len({seed_of(a, b) for a in range(20) for b in range(20)}) == 400
