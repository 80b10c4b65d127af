"""Train the policy that cuts pipelines: `python -m benchmarks.automap.train --minutes 60`.

It learns on random chains alone; no model is ever shown to it. A run that is killed goes on where
it was, and one that is stopped keeps what it has learnt.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.automap.keeping import keep, weights_file
from benchmarks.training import cosine, save
from weft.parallel.dqn.acting import WIDTH, cut
from weft.parallel.dqn.agent import Agent, AgentSettings
from weft.parallel.dqn.chain import best_cuts
from weft.parallel.dqn.cutting import CutEnvironment, Cutting, random_cutting
from weft.parallel.dqn.shipped import CUT_NETWORK
from weft.workflow.stopping import asked_to_stop

__all__ = ["main"]

SETTINGS = AgentSettings(
    learning_rate=1e-3, explore=(1.0, 0.05, 4000), capacity=20_000, returns=(0.0, 1.0), width=96
)
"""Rewards come at the end, so they count in full (gamma 1); a memory ten times the paper's holds
chains enough to tell what they have in common."""
LAST = 0.02
"""Share of the rate at the end."""
CHECKED, CHECKED_EVERY, SAVED_EVERY = 24, 1000, 500
"""Random chains that progress is measured on, and episodes between measurements and checkpoints."""


def train(minutes: float, seed: int = 0) -> None:
    """Train for a time, and write the weights.

    Args:
        minutes: how long, from when it began or went on [min].
        seed: of all chance.
    """
    agent = Agent(CutEnvironment(), SETTINGS, seed)
    partial = weights_file(CUT_NETWORK).with_suffix(".training.pt")
    if partial.exists():
        agent.resume(torch.load(partial, weights_only=False))
    checks = _checks()
    begun = time.perf_counter()

    def share() -> float:
        return min((time.perf_counter() - begun) / (60 * minutes), 1.0)

    with asked_to_stop() as asked:
        while share() < 1 and asked[0] is None:
            agent.at_rate(cosine(share(), LAST))
            episodes = sum(1 for _ in agent.run(SAVED_EVERY, lambda: asked[0] is not None))
            save(partial, agent.state())
            if agent.episodes % CHECKED_EVERY < episodes:
                alone, beside = (_regret(agent, checks, width) for width in (1, WIDTH))
                print(
                    f"{agent.episodes} episodes, {share():.0%}: regret alone {alone}, "
                    f"{WIDTH} ways {beside}",
                    flush=True,
                )
    keep(agent, CUT_NETWORK, f"{agent.episodes} episodes on random chains, seed {seed}")
    if asked[0] is None:
        partial.unlink(missing_ok=True)


def _checks() -> list[tuple[Cutting, float]]:
    """Random chains of two and three stages with their shortest pipelines."""
    generator, found = np.random.default_rng(99), []
    while len(found) < CHECKED:
        task = random_cutting(generator)
        if task.stages < 4:
            chain, line, micro = task.chain, task.line, task.micro_batches
            best = best_cuts(chain, line, task.stages, micro_batches=micro, radius=task.radius)
            found.append((task, best[1]))
    return found


def _regret(agent: Agent, checks: Sequence[tuple[Cutting, float]], width: int) -> str:
    found = [cut(task, agent.network, width)[1] / best - 1 for task, best in checks]
    return f"mean {np.mean(found):.2%}, worst {max(found):.2%}"


def main(arguments: Sequence[str]) -> None:
    """Train."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.automap.train")
    parser.add_argument("--minutes", type=float, default=60.0, help="for so long (60)")
    given = parser.parse_args(arguments)
    train(given.minutes)


if __name__ == "__main__":
    main(sys.argv[1:])
