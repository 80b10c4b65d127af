"""Records of runs that never ran, as files."""

from __future__ import annotations

import numpy as np

from weft.core.records import RecordLog


def fields_of(step, reward, *, lag=4, rng=None, **more):
    """One step, as an engine tells it."""
    wobble = 0.0 if rng is None else float(rng.standard_normal())
    return {
        "step": step,
        "reward": reward,
        "fresh_reward": None,
        "loss": -0.01 + 0.02 * wobble,
        "cosine_raw": 0.5 + 0.1 * wobble if step > 1 else None,
        "cosine_applied": 0.05 * wobble if step > 1 else None,
        "regime": "first" if step == 1 else "project" if wobble >= 0 else "safe",
        "norm_raw": 1.0,
        "norm_applied": 0.8,
        "staleness": float(lag),
        "lags": {str(lag): 48, str(max(0, lag - 1)): 16},
        "kl": 0.01 * (1 + abs(wobble)),
        "entropy": max(0.05, 1.2 - 0.005 * step),
        "clipped": 0.02,
        "effective": 0.9,
        "tokens": 30.0 + wobble,
        "multiplier": 0.001,
        "samples": 64,
        "seconds": 0.5 * step,
    } | more


def write_run(
    folder, *, method="gac", staleness=4, rate=1e-3, seed=0, steps=60, rewards=None, **more
):
    """A run's folder; `rewards` are those of its steps where given, else learning with noise."""
    rng = np.random.default_rng(seed)
    log = RecordLog(folder / "records.jsonl")
    log.append(
        "rl-run",
        **{
            "task": "reversal",
            "engine": "local",
            "method": method,
            "seed": seed,
            "staleness": staleness,
            "learning_rate": rate,
            "hardware": "2 cores",
            "versions": {"torch": "2.13.0"},
        }
        | more,
    )
    if rewards is None:
        rewards = 0.9 * (1 - np.exp(-np.arange(1, steps + 1) / 15)) + 0.02 * rng.standard_normal(
            steps
        )
    for step, reward in enumerate(rewards, start=1):
        told = None if reward is None else float(reward)
        log.append("rl-step", **fields_of(step, told, lag=staleness or 0, rng=rng))
    return folder
