"""The agents' networks that are shipped."""

from __future__ import annotations

from functools import cache

from weft.parallel.dqn.network import Network
from weft.parallel.shipped import read_network

__all__ = ["CUT_NETWORK", "PLAN_NETWORK", "shipped"]

CUT_NETWORK = "cutting.pt"
"""Cuts pipelines. Source: `python -m benchmarks.automap.train`."""
PLAN_NETWORK = "planning.pt"
"""Plans one stage. Source: `python -m benchmarks.automap.train_plans`."""


@cache
def shipped(name: str) -> Network:
    """A network with its weights.

    Args:
        name: of its file.

    Raises:
        InputError: the file is missing from the installation.
    """
    return read_network(Network, "weft.parallel.dqn", name, "a script of benchmarks/automap")
