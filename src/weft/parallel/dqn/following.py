# pyright: standard
"""What a trained network plans: it is followed, nothing is learnt.

It was trained on random programs and machines. Every mesh, with and without the batch cut along its
second axis, is a way; those of which most is expected are followed to the end, and what comes of
them is simulated.
"""

from __future__ import annotations

import numpy as np
import torch

from weft.parallel.dqn.environment import Observation
from weft.parallel.dqn.hybrid import ROWS, HybridEnvironment
from weft.parallel.dqn.network import Network, batched
from weft.parallel.dqn.shipped import PLAN_NETWORK, shipped

__all__ = ["WAYS", "Follower", "plan_network", "ways"]

WAYS = 8
"""Ways that are followed. Chosen: seconds for a model of a few hundred nodes."""


def plan_network() -> Network:
    """The network that is shipped, which was trained on random programs only.

    Raises:
        InputError: its weights are missing from the installation.
    """
    return shipped(PLAN_NETWORK)


def ways(
    environment: HybridEnvironment, network: Network | None = None, count: int = WAYS
) -> list[tuple[int, ...]]:
    """First choices of which most is expected, the best first: of the mesh, and of the rows.

    Args:
        environment: what is to be planned.
        network: the policy; the one that is shipped if not given.
        count: how many at most.
    """
    network = plan_network() if network is None else network
    generator = np.random.default_rng(0)
    found: list[tuple[float, tuple[int, ...]]] = []
    for mesh, value in enumerate(_expected(network, environment.reset(generator))):
        environment.reset(generator)
        after = environment.step(mesh).observation
        if after is not None and environment.kind == ROWS:
            found += [(own, (mesh, rows)) for rows, own in enumerate(_expected(network, after))]
        else:
            found.append((value, (mesh,)))
    return [way for _, way in sorted(found, key=lambda pair: -pair[0])[:count]]


class Follower:
    """Takes given choices first, and then those of which most is expected.

    Args:
        network: the policy.
        way: the first choices.
    """

    def __init__(self, network: Network, way: tuple[int, ...]) -> None:
        self._network, self._left = network, list(reversed(way))

    def __call__(self, observation: Observation) -> int:
        """The choice."""
        if self._left:
            return self._left.pop()
        return int(np.argmax(_expected(self._network, observation)))


def _expected(network: Network, observation: Observation) -> list[float]:
    with torch.no_grad():
        return network.returns(batched([observation]))[0].tolist()
