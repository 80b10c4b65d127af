"""Train the policy that plans one stage: `python -m benchmarks.automap.train_plans --minutes 60`.

It learns on random steps and machines alone; no model that anybody uses is ever shown to it. A run
that is killed goes on where it was, and one that is stopped keeps what it has learnt.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from benchmarks.automap.keeping import keep, weights_file
from benchmarks.automap.random_steps import random_machine, random_step
from benchmarks.training import cosine, save
from weft.core.errors import WeftError
from weft.parallel.dqn.agent import Agent, AgentSettings
from weft.parallel.dqn.environment import Observation, Turn
from weft.parallel.dqn.following import Follower, ways
from weft.parallel.dqn.hybrid import MISFIT, HybridEnvironment, lessons
from weft.parallel.dqn.shipped import PLAN_NETWORK
from weft.parallel.request import PlanRequest
from weft.program.fold import fold
from weft.workflow.stopping import asked_to_stop

__all__ = ["AnyPlan", "main", "random_plans"]

SETTINGS = AgentSettings(
    learning_rate=1e-3, explore=(0.6, 0.1, 4000), capacity=20_000, returns=(0.0, 1.0), width=96
)
"""As for the cuts of chains: rewards come at the end and count in full."""
LAST = 0.02
"""Share of the rate at the end."""
PLAYED = 30
"""Episodes of a step on a machine, beside the lessons. Source: Auto-MAP, section 3.4, uses each of
its random environments 50 times."""
SHOWN = 6
"""Lessons that are learnt from, of all that there are."""
CHECKED, SAVED_EVERY = 6, 200
"""Random cases that progress is measured on, and episodes between checkpoints."""


def random_plans(generator: np.random.Generator) -> HybridEnvironment:
    """A random step on a random machine; what is worth 0.55 is the best lesson's step."""
    while True:
        program, machine = random_step(generator), random_machine(generator)
        own = HybridEnvironment(PlanRequest(program=program, machine=machine), fold(program), None)
        try:
            for lesson in lessons(own):
                played(own, lesson)
        except WeftError:
            continue  # nothing divides, or nothing is to be decided
        known = (p for p in own.known.values() if p is not None and own.fits(p))
        own.unit_s = min((p.step_s for p in known), default=0.0)
        if own.unit_s:
            return own


def played(environment: HybridEnvironment, choose: Callable[[Observation], int]) -> float:
    """The reward of an episode."""
    observation: Observation | None = environment.reset(np.random.default_rng(0))
    reward = 0.0
    while observation is not None:
        turn = environment.step(choose(observation))
        observation, reward = turn.observation, turn.reward
    return reward


class AnyPlan:
    """Episodes of the environment at hand."""

    shared_width = HybridEnvironment.shared_width
    choice_width = HybridEnvironment.choice_width

    def __init__(self) -> None:
        self.own: HybridEnvironment | None = None

    def reset(self, generator: np.random.Generator) -> Observation:
        """Begin an episode of it."""
        assert self.own is not None
        return self.own.reset(generator)

    def step(self, choice: int) -> Turn:
        """Take one of its choices."""
        assert self.own is not None
        return self.own.step(choice)


def train(minutes: float, seed: int = 0) -> None:
    """Train for a time, and write the weights.

    Args:
        minutes: how long, from when it began or went on [min].
        seed: of all chance.
    """
    agent = Agent(environment := AnyPlan(), SETTINGS, seed)
    partial = weights_file(PLAN_NETWORK).with_suffix(".training.pt")
    if partial.exists():
        agent.resume(torch.load(partial, weights_only=False))
    apart = np.random.default_rng(99)
    checks = [random_plans(apart) for _ in range(CHECKED)]
    generator = np.random.default_rng([seed, agent.episodes])
    begun = time.perf_counter()
    measured = agent.episodes

    def share() -> float:
        return min((time.perf_counter() - begun) / (60 * minutes), 1.0)

    with asked_to_stop() as asked:
        while share() < 1 and asked[0] is None:
            agent.at_rate(cosine(share(), LAST))
            environment.own = random_plans(generator)
            shown = list(lessons(environment.own))
            for number in generator.permutation(len(shown))[:SHOWN]:
                agent.watch(shown[number])
            for _ in agent.run(PLAYED, lambda: asked[0] is not None):
                pass
            if agent.episodes - measured >= SAVED_EVERY:
                measured = agent.episodes
                save(partial, agent.state())
                print(f"{measured} episodes, {share():.0%}: {_measured(agent, checks)}", flush=True)
    keep(agent, PLAN_NETWORK, f"{agent.episodes} episodes on random steps, seed {seed}")
    print(f"{agent.episodes} episodes: {_measured(agent, checks)}", flush=True)
    if asked[0] is None:
        partial.unlink(missing_ok=True)


def _measured(agent: Agent, checks: Sequence[HybridEnvironment]) -> str:
    """Steps of what the policy plans, over those of the best lessons."""
    found: list[float] = []
    for own in checks:
        followed = ways(own, agent.network)
        rewards = [played(own, Follower(agent.network, way)) for way in followed]
        found.append(step_over_unit(max(rewards)))
    fits = [over for over in found if over < np.inf]
    told = f"mean {np.mean(fits):.3f}, worst {max(fits):.3f}" if fits else "none"
    return f"steps over the best lesson's: {told}; {len(fits)} of {len(found)} fit"


def step_over_unit(reward: float) -> float:
    """The step that a reward was paid for; infinite where it did not fit."""
    return (1 - MISFIT) / (reward - MISFIT) - 1 if reward > MISFIT else np.inf


def main(arguments: Sequence[str]) -> None:
    """Train."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.automap.train_plans")
    parser.add_argument("--minutes", type=float, default=60.0, help="for so long (60)")
    given = parser.parse_args(arguments)
    train(given.minutes)


if __name__ == "__main__":
    main(sys.argv[1:])
