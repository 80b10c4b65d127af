# pyright: standard
"""What a trained network decides: cuts of a chain, by the most promising ways side by side."""

from __future__ import annotations

import torch

from weft.core.errors import InputError
from weft.parallel.dqn.chain import Cuts, pipeline_seconds
from weft.parallel.dqn.cutting import CutEnvironment, Cutting
from weft.parallel.dqn.network import Network, batched
from weft.parallel.dqn.shipped import CUT_NETWORK, shipped

__all__ = ["WIDTH", "cut", "cut_network"]

WIDTH = 32
"""Ways that are followed side by side. Chosen: more cost time and found nothing shorter."""


def cut_network() -> Network:
    """The network that is shipped, which was trained on random chains only.

    Raises:
        InputError: its weights are missing from the installation.
    """
    return shipped(CUT_NETWORK)


def cut(task: Cutting, network: Network | None = None, width: int = WIDTH) -> tuple[Cuts, float]:
    """The shortest pipeline among those that a policy finds most promising.

    Args:
        task: what to cut.
        network: the policy; the one that is shipped if not given.
        width: ways that are followed side by side; 1 for the policy alone.

    Returns:
        The cuts and the pipeline's length [s].

    Raises:
        InputError: fewer than one way, or more stages than pieces or devices.
    """
    if width < 1 or not 2 <= task.stages <= min(len(task.chain), task.line.num_devices):
        raise InputError(
            need="at least one way, and 2 stages or more, with a piece and a device for each",
            got=f"{width} ways; {task.stages} stages, {len(task.chain)} pieces, "
            f"{task.line.num_devices} devices",
            hint="fewer stages",
        )
    network = cut_network() if network is None else network
    ways: list[Cuts] = [()]
    for _ in range(task.stages - 1):
        ways = _onward(task, network, ways, width)
    lengths = [pipeline_seconds(task.chain, task.line, way, task.micro_batches) for way in ways]
    best = min(range(len(ways)), key=lengths.__getitem__)
    return ways[best], lengths[best]


def _onward(task: Cutting, network: Network, ways: list[Cuts], width: int) -> list[Cuts]:
    """The most promising ways with one cut more."""
    environments = [CutEnvironment() for _ in ways]
    observations = [own.resume(task, way) for own, way in zip(environments, ways, strict=True)]
    with torch.no_grad():
        expected = network.returns(batched(observations))
    count = min(width, int(torch.isfinite(expected).sum()))
    places = (
        divmod(place, expected.shape[1]) for place in expected.flatten().topk(count)[1].tolist()
    )
    return [(*ways[way], environments[way].cut_at(choice)) for way, choice in places]
