# pyright: standard
"""Networks that were trained once and are shipped as data of the package."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import torch

from weft.core.errors import InputError
from weft.parallel.dqn.network import Network

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
    path = files("weft.parallel.dqn").joinpath(name)
    try:
        with path.open("rb") as file:
            kept = torch.load(file, weights_only=True)
    except OSError as error:
        raise InputError(
            need=f"the weights of a policy, {name}",
            got=str(error),
            hint="install weft again; in a clone, the scripts of benchmarks/automap train them",
        ) from error
    network = Network(**kept["sizes"])
    network.load_state_dict({name: value.float() for name, value in kept["weights"].items()})
    return network.eval().requires_grad_(requires_grad=False)
