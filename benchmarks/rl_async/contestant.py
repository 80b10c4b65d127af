"""One way to train, in a process of its own: how fast it is, and what its policy is worth.

    python -m benchmarks.rl_async.contestant CASE

The speed is that of steps after the first ten, in which processes start and pages are touched for
the first time. The policy is asked prompts that nobody was trained on.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.job import ROOT
from weft.core.records import read_records
from weft.rl.engines.checkpoint import load_checkpoint
from weft.rl.sampling import ModelSampler, roll
from weft.rl.task import Task
from weft.workflow.recipe import load_task
from weft.workflow.train_rl import TrainSettings, train_rl

__all__ = ["measure"]

FIRST_STEPS = 10
UNSEEN = 10**6
"""Numbers of prompts from here on are not trained on."""
ASKED = 512


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Train and look back.

    Args:
        case: recipe (a name in recipes/), engine, staleness, steps, seed, threads.
    """
    torch.set_num_threads(case["threads"])
    recipe = str(ROOT / "recipes" / case["recipe"])
    with tempfile.TemporaryDirectory(prefix="weft-rl-async-") as name:
        folder = Path(name)
        summary = train_rl(
            TrainSettings(
                recipe=recipe,
                folder=folder,
                engine=case["engine"],
                staleness=case["staleness"],
                steps=case["steps"],
                seed=case["seed"],
                workers=1,
                correction=case["correction"],
            )
        )
        steps = [record.fields for record in read_records(folder / "records.jsonl", "rl-step")]
        state = load_checkpoint(folder / "checkpoint.pt")["learner"]["model"]
    after = steps[FIRST_STEPS:]
    seconds = float(str(after[-1]["seconds"])) - float(str(steps[FIRST_STEPS - 1]["seconds"]))
    return {
        "samples_per_s": sum(int(str(step["samples"])) for step in after) / seconds,
        "waited_s": _mean(after, "waited_s"),
        "learnt_s": _mean(after, "learnt_s"),
        "staleness": _mean(after, "staleness"),
        "trained_reward": summary.reward,
        "reward": _worth(load_task(recipe), state),
    }


def _mean(steps: list[Any], name: str) -> float:
    return sum(float(step[name]) for step in steps) / len(steps)


def _worth(task: Task, state: dict[str, torch.Tensor]) -> float:
    """Mean reward of a policy's answers to prompts that it was not trained on."""
    sampler = ModelSampler(task)
    sampler.load({name: value.numpy() for name, value in state.items()})
    numbers = range(UNSEEN, UNSEEN + ASKED)
    groups = roll(task, sampler, numbers, version=0, seed=UNSEEN)
    rewards = [one.reward for group in groups for one in group]
    return sum(rewards) / len(rewards)


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
