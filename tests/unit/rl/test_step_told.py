"""What parts of a batch were told of adds up to what the whole is."""

import json

import pytest
import torch

from weft.rl.corrections import Batch, PPOClip
from weft.rl.step_told import StepTold, TokenSums


def told(rows, batch):
    parts = TokenSums()
    for part in rows:
        cut = Batch(
            current=batch.current[part],
            behaviour=batch.behaviour[part],
            advantages=batch.advantages[part],
            mask=batch.mask[part],
        )
        parts.add(PPOClip()(cut).told, entropy=float(cut.mask.sum()))
    return parts.means()


def test_parts_are_told_of_as_the_whole_is():
    chance = torch.Generator().manual_seed(0)
    batch = Batch(
        current=torch.randn(6, 5, generator=chance),
        behaviour=torch.randn(6, 5, generator=chance),
        advantages=torch.randn(6, generator=chance),
        mask=torch.rand(6, 5, generator=chance) < 0.7,
    )
    whole = told([slice(0, 6)], batch)
    assert told([slice(0, 1), slice(1, 4), slice(4, 6)], batch) == pytest.approx(whole)
    direct = PPOClip()(batch).told.read()
    assert whole["effective"] == pytest.approx(direct["effective"])
    assert whole["clipped"] == pytest.approx(direct["clipped"]) and whole["clipped"] > 0
    assert whole["entropy"] == pytest.approx(1.0)


def test_nothing_is_told_of_nothing():
    means = TokenSums().means()
    assert means == {"kl": 0.0, "entropy": 0.0, "clipped": 0.0, "effective": 0.0}


def test_a_step_is_plain_json():
    step = StepTold(
        step=1,
        reward=0.5,
        loss=0.1,
        cosine_raw=None,
        cosine_applied=None,
        regime=None,
        norm_raw=1.0,
        norm_applied=1.0,
        norm_unclipped=2.0,
        staleness=0.5,
        lags={0: 4, 1: 4},
        tokens=3.0,
        multiplier=None,
        samples=8,
        prompts=(0, 1),
        **TokenSums().means(),
    )
    plain = step.to_plain()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["lags"] == {"0": 4, "1": 4} and plain["prompts"] == [0, 1]
