"""The room's facade."""

from __future__ import annotations

import subprocess
import sys

import pytest

import weft.rl

NAMES = [
    "Applied",
    "Batch",
    "Corrected",
    "Correction",
    "Decoupled",
    "DelayCompensation",
    "Ema",
    "GAC",
    "GACCallback",
    "KLPenalty",
    "Learner",
    "M2PO",
    "Method",
    "PPOClip",
    "PolicyGradient",
    "Previous",
    "Prompt",
    "Regime",
    "Rollout",
    "SampleBuffer",
    "SequenceMask",
    "Task",
    "TensorBoardLog",
    "Thresholds",
    "TokenBudget",
    "Truncated",
    "Versions",
    "matched_strength",
    "write_tensorboard",
]


def test_the_public_names_are_these():
    assert sorted(weft.rl.__all__) == NAMES == sorted(weft.rl._HOME)


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there(name):
    assert callable(getattr(weft.rl, name))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = weft.rl.nonsense


def test_the_facade_alone_loads_no_torch():
    code = "import sys, weft.rl; sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(weft.rl.__path__[0]).removesuffix("/weft/rl")},
        timeout=300,
    )
    assert done.returncode == 0
