"""Rollouts as data and as tensors."""

import math
from dataclasses import replace

import pytest

from weft.core.errors import InputError
from weft.rl.rollout import Rollout, collate

SHORT = Rollout(number=3, prompt=(7,), tokens=(1, 2), log_probs=(-0.5, -1.5), reward=1.0, version=2)
LONG = replace(SHORT, prompt=(8, 9, 10), tokens=(4,), log_probs=(-2.0,))


def test_plain_values_give_the_same_rollout():
    assert Rollout.from_plain(SHORT.to_plain()) == SHORT


def test_lists_of_a_checkpoint_give_the_same_rollout():
    plain = {name: list(v) if isinstance(v, tuple) else v for name, v in SHORT.to_plain().items()}
    assert Rollout.from_plain(plain) == SHORT


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": ()},
        {"tokens": (), "log_probs": ()},
        {"log_probs": (-0.5,)},
        {"reward": math.nan},
        {"log_probs": (-0.5, -math.inf)},
    ],
)
def test_what_cannot_be_trained_on_is_refused(change):
    with pytest.raises(InputError):
        replace(SHORT, **change)


def test_answers_begin_at_one_column_whatever_their_prompts():
    padded = collate([SHORT, LONG], pad=0, device="cpu")
    assert padded.ids.tolist() == [[0, 0, 7, 1, 2], [8, 9, 10, 4, 0]]
    assert padded.targets.tolist() == [[1, 2], [4, 0]]
    assert padded.mask.tolist() == [[True, True], [True, False]]
    assert padded.behaviour.tolist() == [[-0.5, -1.5], [-2.0, 0.0]]


def test_positions_count_from_the_first_token_of_the_prompt():
    padded = collate([SHORT, LONG], pad=0, device="cpu")
    assert padded.attention.tolist() == [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert padded.positions[0, 2:].tolist() == [0, 1, 2]
    assert padded.positions[1].tolist() == [0, 1, 2, 3, 4]


def test_prompts_of_one_length_need_no_mask():
    padded = collate([SHORT, SHORT], pad=0, device="cpu")
    assert padded.attention is None and padded.positions is None
