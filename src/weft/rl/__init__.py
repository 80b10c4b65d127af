"""Training on samples that an older policy made: gradients that fit the weights they are used on.

    optimizer = weft.rl.GAC(torch.optim.AdamW(model.parameters(), lr=1e-6))

Names load when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weft.core.lazy import lazy

if TYPE_CHECKING:
    from weft.rl.alignment import Regime as Regime
    from weft.rl.alignment import Thresholds as Thresholds
    from weft.rl.buffer import SampleBuffer as SampleBuffer
    from weft.rl.compensation import DelayCompensation as DelayCompensation
    from weft.rl.corrections import M2PO as M2PO
    from weft.rl.corrections import Batch as Batch
    from weft.rl.corrections import Corrected as Corrected
    from weft.rl.corrections import Correction as Correction
    from weft.rl.corrections import Decoupled as Decoupled
    from weft.rl.corrections import PPOClip as PPOClip
    from weft.rl.corrections import SequenceMask as SequenceMask
    from weft.rl.corrections import Truncated as Truncated
    from weft.rl.gac import GAC as GAC
    from weft.rl.learner import Learner as Learner
    from weft.rl.learner import Method as Method
    from weft.rl.penalty import KLPenalty as KLPenalty
    from weft.rl.penalty import matched_strength as matched_strength
    from weft.rl.policy_gradient import PolicyGradient as PolicyGradient
    from weft.rl.reference import Applied as Applied
    from weft.rl.reference import Ema as Ema
    from weft.rl.reference import Previous as Previous
    from weft.rl.rollout import Rollout as Rollout
    from weft.rl.task import Prompt as Prompt
    from weft.rl.task import Task as Task
    from weft.rl.tensorboard import TensorBoardLog as TensorBoardLog
    from weft.rl.tensorboard import write_tensorboard as write_tensorboard
    from weft.rl.token_budget import TokenBudget as TokenBudget
    from weft.rl.trl.callback import GACCallback as GACCallback
    from weft.rl.versions import Versions as Versions

_HOME = {
    "Applied": "weft.rl.reference",
    "Batch": "weft.rl.corrections",
    "Corrected": "weft.rl.corrections",
    "Correction": "weft.rl.corrections",
    "Decoupled": "weft.rl.corrections",
    "DelayCompensation": "weft.rl.compensation",
    "Ema": "weft.rl.reference",
    "GAC": "weft.rl.gac",
    "GACCallback": "weft.rl.trl.callback",
    "KLPenalty": "weft.rl.penalty",
    "Learner": "weft.rl.learner",
    "M2PO": "weft.rl.corrections",
    "Method": "weft.rl.learner",
    "PPOClip": "weft.rl.corrections",
    "PolicyGradient": "weft.rl.policy_gradient",
    "Previous": "weft.rl.reference",
    "Prompt": "weft.rl.task",
    "Regime": "weft.rl.alignment",
    "Rollout": "weft.rl.rollout",
    "SampleBuffer": "weft.rl.buffer",
    "SequenceMask": "weft.rl.corrections",
    "Task": "weft.rl.task",
    "TensorBoardLog": "weft.rl.tensorboard",
    "Thresholds": "weft.rl.alignment",
    "TokenBudget": "weft.rl.token_budget",
    "Truncated": "weft.rl.corrections",
    "Versions": "weft.rl.versions",
    "matched_strength": "weft.rl.penalty",
    "write_tensorboard": "weft.rl.tensorboard",
}
"""Where each name lives."""

__all__ = [  # sorted, as a test checks
    "GAC",
    "M2PO",
    "Applied",
    "Batch",
    "Corrected",
    "Correction",
    "Decoupled",
    "DelayCompensation",
    "Ema",
    "GACCallback",
    "KLPenalty",
    "Learner",
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


__getattr__ = lazy(__name__, _HOME)
