"""Weights of a trained agent, as the package ships them."""

from __future__ import annotations

from pathlib import Path

from benchmarks.training import save
from weft.parallel import dqn
from weft.parallel.dqn.agent import Agent

__all__ = ["keep", "weights_file"]


def weights_file(name: str) -> Path:
    """Where the package keeps a network."""
    return Path(dqn.__path__[0]) / name


def keep(agent: Agent, name: str, told: str) -> None:
    """Write a network in half precision.

    Args:
        agent: whose it is.
        name: of the file.
        told: how it was trained, in words.
    """
    environment, settings = agent.environment, agent.settings
    halves = {key: value.half() for key, value in agent.network.state_dict().items()}
    sizes = {
        "shared_width": environment.shared_width,
        "choice_width": environment.choice_width,
        "low": settings.returns[0],
        "high": settings.returns[1],
        "atoms": settings.atoms,
        "width": settings.width,
    }
    save(weights_file(name), {"sizes": sizes, "weights": halves, "training": told})
